"""A simulation's loop: demand in, `plan_scale` and `plan_cluster` as in the operator, the fleet after."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from headwater_api.meeting import Meeting
from headwater_api.sfucluster import SFUCluster
from headwater_planner.cluster import plan_cluster
from headwater_planner.place import CONNECTIONS_PER_PARTICIPANT
from headwater_planner.scale.floors import OPEN_END, RAMP_DOWN
from headwater_planner.scale.plan import plan_scale
from headwater_planner.scale.result import RegionDecision, ScaleState
from headwater_planner.scale.signals import NodeSignals, signals_of_reports
from headwater_planner.world import ClusterWorld

from headwater_cli.simulate.demand import Demand
from headwater_cli.simulate.fleet import Fleet, Physics

Signals = Mapping[str, NodeSignals]


class Faults(Protocol):
    """What goes wrong in a run."""

    def strike(self, fleet: Fleet, rng: Random) -> None:
        """Before each pass: end a node, silence it."""

    def distort(self, signals: Signals, rng: Random) -> Signals:
        """What arrives of the nodes' figures."""

    def observe(
        self, world: ClusterWorld, state: ScaleState, now: datetime, rng: Random
    ) -> tuple[ClusterWorld, ScaleState, datetime]:
        """What the operator sees and remembers, and what its clock says."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A region at one moment. `load`: nodes full of its participants; `offered`: with those who wait."""

    at: datetime
    region: str
    participants: int
    waiting: int
    load: float
    desired: int
    ready: int


@dataclass(frozen=True, slots=True)
class Change:
    """A decision and its time."""

    at: datetime
    decision: RegionDecision


@dataclass(slots=True)
class Outcome:
    """What happened. Times in seconds."""

    samples: list[Sample] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    node_seconds: float = 0.0
    moved: int = 0
    deleted: int = 0
    peak_nodes: int = 0
    peak_participants: int = 0
    # The longest time in which somebody waited for a place, and when it began.
    longest_wait_s: float = 0.0
    longest_wait_at: datetime | None = None
    waited: int = 0  # steps times participants who waited

    def turns(self, window_s: float) -> list[tuple[datetime, str]]:
        """Where a region's number went down sooner than `window_s` after it went up: flapping."""
        raised: dict[str, datetime] = {}
        found = []
        for change in self.changes:
            name = change.decision.region
            if change.decision.to_nodes > change.decision.from_nodes:
                raised[name] = change.at
            elif name in raised and (change.at - raised[name]).total_seconds() < window_s:
                found.append((change.at, name))
        return found


class Simulation:
    """One run. The same seed gives the same run."""

    def __init__(
        self,
        cluster: SFUCluster,
        demand: Demand,
        *,
        seed: int = 1,
        step_s: float = 5.0,
        physics: Physics | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.demand = demand
        self._rng = Random(seed)
        self._seed = seed
        self.interval = timedelta(seconds=step_s)
        self._faults = faults
        self._state = ScaleState()
        self._next_event = 0
        self._short_since: datetime | None = None
        self._meetings = _Announced(demand)
        self.now = demand.start
        self.fleet = Fleet(cluster, demand.start, self._rng, physics)
        self.outcome = Outcome()

    def run(self, sample_every_s: float = 0.0) -> Outcome:
        """To the end of the demand. Raises ServingNodeDeleted."""
        sampled: datetime | None = None
        while self.now <= self.demand.end:
            self.step()
            if sampled is None or (self.now - sampled).total_seconds() >= sample_every_s:
                sampled = self.now
                self._sample()
            self.now += self.interval
        return self.outcome

    def step(self) -> None:
        """One pass at `now`: people come and go, the planner looks and acts."""
        fleet = self.fleet
        fleet.advance(self.now)
        events = self.demand.events
        while self._next_event < len(events) and events[self._next_event].at <= self.now:
            event = events[self._next_event]
            self._next_event += 1
            if event.change > 0:
                fleet.join(event.room, event.region, event.change)
            else:
                fleet.leave(event.room, event.region, -event.change)
        if self._faults is not None:
            self._faults.strike(fleet, self._rng)
        self._watch()
        world, state, now = fleet.world(), self._state, self.now
        if self._faults is not None:
            world, state, now = self._faults.observe(world, state, now, self._rng)
        signals: Signals = signals_of_reports(world.loads)
        if self._faults is not None:
            signals = self._faults.distort(signals, self._rng)
        meetings = self._meetings.around(self.now)
        scale = plan_scale(world, signals, meetings, state, now, seed=self._seed)
        self._state = scale.state
        self.outcome.changes += [Change(self.now, decision) for decision in scale.changes]
        fleet.act(plan_cluster(world, scale.desired, now, self._rng).actions)
        self.outcome.moved, self.outcome.deleted = fleet.moved, fleet.deleted

    def desired(self, region: str) -> int:
        """The wanted number as of the last step."""
        return self._state.regions[region].desired

    def _watch(self) -> None:
        outcome, fleet = self.outcome, self.fleet
        present = sum(node.participants for node in fleet.nodes.values())
        outcome.node_seconds += len(fleet.nodes) * self.interval.total_seconds()
        outcome.peak_nodes = max(outcome.peak_nodes, len(fleet.nodes))
        outcome.peak_participants = max(outcome.peak_participants, present)
        waiting = fleet.waiting.total()
        outcome.waited += waiting
        if not waiting:
            self._short_since = None
            return
        self._short_since = self._short_since or self.now
        lasted_s = (self.now - self._short_since + self.interval).total_seconds()
        if lasted_s > outcome.longest_wait_s:
            outcome.longest_wait_s, outcome.longest_wait_at = lasted_s, self._short_since

    def _sample(self) -> None:
        per_node = self.fleet.cluster.spec.node.capacity.connections / CONNECTIONS_PER_PARTICIPANT
        for region in self.fleet.cluster.spec.regions:
            nodes = [node for node in self.fleet.nodes.values() if node.region == region.name]
            here = sum(node.participants for node in nodes)
            waiting = sum(n for (_, origin), n in self.fleet.waiting.items() if origin == region.name)
            self.outcome.samples.append(
                Sample(
                    self.now,
                    region.name,
                    here,
                    waiting,
                    (here + waiting) / per_node,
                    self.desired(region.name),
                    sum(1 for node in nodes if node.open),
                )
            )


class _Announced:
    """The Meetings that can matter around a time, so that a pass need not look at a week of them."""

    def __init__(self, demand: Demand) -> None:
        spans: list[tuple[datetime, datetime, Meeting]] = []
        for meeting in demand.meetings:
            schedule = meeting.spec.schedule
            if schedule is not None:
                begin = schedule.start - schedule.lead_time - timedelta(minutes=5)
                end = schedule.start + (schedule.duration or OPEN_END) + RAMP_DOWN + timedelta(minutes=5)
                spans.append((begin, end, meeting))
        spans.sort(key=lambda span: span[0])
        self._spans = spans
        self._next = 0
        self._open: list[tuple[datetime, datetime, Meeting]] = []

    def around(self, now: datetime) -> list[Meeting]:
        """Those whose time is now; called with growing times."""
        while self._next < len(self._spans) and self._spans[self._next][0] <= now:
            self._open.append(self._spans[self._next])
            self._next += 1
        self._open = [span for span in self._open if span[1] >= now]
        return [span[2] for span in self._open]
