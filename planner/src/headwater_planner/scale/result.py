"""What `plan_scale` is given back and gives: plain values, kept by the caller between passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headwater_api.reasons import Reason

from headwater_planner.scale.behavior import Sample
from headwater_planner.scale.forecast import Forecast
from headwater_planner.scale.history import History
from headwater_planner.supply import Held


@dataclass(frozen=True, slots=True)
class RegionMemory:
    """What the next pass must know of a region.

    `desired`: its number; `highs`, `lows`: recommendations that a stabilisation window may still need;
    `changes`: for the policies; `overflow`: nodes that it wants beyond its maxNodes; `received`: other
    regions' demand met here.
    """

    desired: int
    highs: tuple[Sample, ...] = ()
    lows: tuple[Sample, ...] = ()
    changes: tuple[Sample, ...] = ()
    overflow: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class ScaleState:
    """Empty after a start: then nothing is lowered for a whole stabilisation window.

    Only `history` is worth storing (`history.to_json`, `history.from_json`).
    """

    regions: Mapping[str, RegionMemory] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)  # transports_created by node
    history: History = field(default_factory=History)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegionDecision:
    """A region's number and why: `sentence` is the log line, the event, the condition and status.lastScale.

    `load_nodes`: what load alone asks for, not rounded; None where it is not known.
    `wanted`: before windows, policies and limits.
    """

    region: str
    from_nodes: int
    to_nodes: int
    reason: Reason
    sentence: str
    wanted: int
    load_nodes: float | None = None
    forecast: Forecast | None = None

    @property
    def changed(self) -> bool:
        """Whether the number is another one than before."""
        return self.from_nodes != self.to_nodes

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition without its type and times; its text has no figures that change with load."""

    status: bool
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """The numbers by region, why, the conditions ScalingActive and ScalingLimited, and the next state.

    `problems`: what a user must mend (an unreadable schedule, a meeting that does not fit).
    """

    desired: Mapping[str, int]
    decisions: tuple[RegionDecision, ...]
    state: ScaleState
    active: Finding
    limited: Finding
    problems: tuple[Held, ...] = ()

    @property
    def changes(self) -> tuple[RegionDecision, ...]:
        """The decisions that change a number."""
        return tuple(decision for decision in self.decisions if decision.changed)

    def __str__(self) -> str:
        return "\n".join(str(decision) for decision in self.decisions)
