"""One sentence and one reason for each region's number."""

from collections.abc import Sequence
from dataclasses import dataclass

from headwater_api.fleet_policy import ScalingBehavior, ScalingRules
from headwater_api.reasons import Reason
from headwater_api.sfucluster import RegionSpec
from headwater_api.units import format_duration

from headwater_planner.scale.behavior import down_window, up_window
from headwater_planner.scale.floors import Floor
from headwater_planner.scale.need import ceil_nodes
from headwater_planner.scale.region import RegionView
from headwater_planner.scale.spill import Spill
from headwater_planner.supply import nodes_text

_SHOWN: int = 3


@dataclass(frozen=True, slots=True)
class Story:
    """All that led to one region's number.

    `own`: what its own load asks for; `wanted`: with floors and other regions' surplus; `steady`: after the
    stabilisation window; `paced`: after the policies; `final`: after every limit.
    """

    view: RegionView
    floor: Floor
    own: int
    wanted: int
    steady: int
    paced: int
    final: int
    out: Sequence[Spill]
    into: Sequence[Spill]
    behavior: ScalingBehavior
    total_limit: int | None

    @property
    def region(self) -> RegionSpec:
        """The region's spec."""
        return self.view.region

    @property
    def current(self) -> int:
        """The number so far."""
        return self.view.memory.desired

    @property
    def up(self) -> ScalingRules:
        """Of a raise."""
        return self.behavior.scale_up

    @property
    def down(self) -> ScalingRules:
        """Of a lowering."""
        return self.behavior.scale_down


def explain(story: Story) -> tuple[Reason, str]:
    """The reason and the sentence, at most 1024 characters."""
    name = story.region.name
    if story.final == story.current:
        reason, why = _why_same(story)
        text = f"Region {name} stays at {nodes_text(story.final)}: {why}"
    else:
        reason, why = _why_up(story) if story.final > story.current else _why_down(story)
        text = f"Scale region {name} from {story.current} to {nodes_text(story.final)}: {why}"
    return reason, f"{text}{_spilled(story)}"[:1024]


def _why_up(story: Story) -> tuple[Reason, str]:
    reason, text = _cause(story)
    if story.final < story.wanted:
        text += f"; {story.wanted} are wanted, {_brake(story)[1]}"
    return reason, text


def _why_down(story: Story) -> tuple[Reason, str]:
    if story.current > story.region.max_nodes:
        return Reason.ABOVE_MAX_NODES, f"its maxNodes is {story.region.max_nodes}"
    if story.total_limit is not None and story.final < story.paced:
        return Reason.ABOVE_MAX_NODES, f"autoscaling.maxNodes is {story.total_limit}"
    window = down_window(story.down)
    for_how_long = f" for {format_duration(window)}" if window else ""
    why = f"no more than {story.steady} wanted{for_how_long}; {story.view.largest.text}"
    if story.final > story.steady:
        why += "; scaleDown's policies allow no more for now"
    elif story.floor.nodes == story.final and story.floor.nodes > story.own:
        why += f"; {story.floor.text}"
    return Reason.LOAD_BELOW_TARGET, why


def _why_same(story: Story) -> tuple[Reason, str]:
    if story.wanted > story.final:
        reason, brake = _brake(story)
        return reason, f"{story.wanted} are wanted ({_cause(story)[1]}), but {brake}"
    if story.view.blind:
        return Reason.METRICS_MISSING, f"{_blindness(story)}, so nothing is lowered"
    if story.wanted < story.final:
        return _why_not_down(story)
    if story.floor.nodes >= story.final and story.floor.nodes > story.own:
        return story.floor.reason, story.floor.text
    return Reason.AS_EXPECTED, story.view.largest.text


def _why_not_down(story: Story) -> tuple[Reason, str]:
    if story.down.select_policy == "Disabled":
        return Reason.SCALING_DISABLED, f"{story.wanted} are wanted, but scaleDown is disabled"
    if story.steady == story.current:
        window = format_duration(down_window(story.down))
        return Reason.STABILIZING, f"{story.wanted} are wanted now, more were within the last {window}"
    text = f"{story.wanted} are wanted, but scaleDown's policies allow none to go yet"
    return Reason.POLICY_LIMITED, text


def _cause(story: Story) -> tuple[Reason, str]:
    """What asks for the most."""
    if story.floor.nodes >= story.wanted:
        return story.floor.reason, story.floor.text
    if story.into and story.own < story.wanted:
        parts = [f"{spill.nodes} for region {spill.source}, which is at its maxNodes" for spill in story.into]
        return Reason.SPILLED_OVER, f"{story.wanted} nodes are wanted, of these {' and '.join(parts)}"
    need = max(story.view.needs, key=lambda need: (ceil_nodes(need.nodes), need.nodes))
    return need.reason, need.text


def _brake(story: Story) -> tuple[Reason, str]:
    """What keeps the number below the wanted one."""
    if story.final < story.paced and story.total_limit is not None:
        return Reason.AT_MAX_NODES, f"autoscaling.maxNodes is {story.total_limit}"
    if story.up.select_policy == "Disabled":
        return Reason.SCALING_DISABLED, "scaleUp is disabled"
    if story.steady < story.wanted:
        return Reason.STABILIZING, f"fewer were within the last {format_duration(up_window(story.up))}"
    return Reason.POLICY_LIMITED, "scaleUp's policies allow no more for now"


def _spilled(story: Story) -> str:
    if not story.out:
        return ""
    limit = story.region.max_nodes
    parts = [
        f"{spill.nodes} more go to region {spill.target}, the nearest with room"
        if spill.target
        else f"{spill.nodes} more fit nowhere"
        for spill in story.out
    ]
    return f"; its maxNodes is {limit}, {' and '.join(parts)}"


def _blindness(story: Story) -> str:
    faults = story.view.usage.faults
    if not faults:
        return "no node sends figures yet"
    more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return f"load is not known ({', '.join(faults[:_SHOWN])}{more})"
