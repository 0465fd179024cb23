"""Numbers of nodes that a region has whatever its load: minNodes, replicas, schedules, expected meetings.

A floor starts a little before its time, earlier by a jitter that differs from schedule to schedule, so that
those of one full hour do not start together; after its end it goes down in steps. Jitter only ever makes a
floor longer.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from headwater_api.meeting import Meeting
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUClusterSpec
from headwater_api.units import format_time

from headwater_planner.meeting import is_ended
from headwater_planner.place import CONNECTIONS_PER_PARTICIPANT
from headwater_planner.scale.cron import InvalidSchedule, starts_around
from headwater_planner.scale.need import (
    START_ALLOWANCE,
    ceil_nodes,
    connections_per_node,
    nodes_for_connections,
)
from headwater_planner.scale.spill import nearest_regions
from headwater_planner.supply import Held

MAX_JITTER_S: Final = 60.0
RAMP_DOWN: Final = timedelta(minutes=10)
# A meeting without a duration to which nobody comes is not waited for longer than this.
OPEN_END: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Floor:
    """At least so many nodes in a region, and why."""

    nodes: int
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Expected:
    """Announced participants, in connections by region, and the floors that follow from them."""

    floors: Mapping[str, Floor] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)  # connections not opened yet
    unplaced: tuple[Held, ...] = ()


def schedule_floors(
    spec: SFUClusterSpec, now: datetime, seed: int
) -> tuple[dict[str, Floor], tuple[Held, ...]]:
    """The highest floor of `autoscaling.schedules` by region, and what cannot be read."""
    floors: dict[str, Floor] = {}
    problems: list[Held] = []
    for schedule in spec.autoscaling.schedules:
        try:
            starts = starts_around(schedule.cron, schedule.time_zone, now)
        except InvalidSchedule as error:
            text = f"spec.autoscaling.schedules[{schedule.name}]: {error}"
            problems.append(Held(Reason.SCHEDULE_INVALID, text))
            continue
        jitter = _jitter(seed, schedule.name)
        weight = max(
            _weight(start, start + schedule.duration, now, jitter) if start else 0.0
            for start in (starts.last, starts.next)
        )
        nodes = ceil_nodes(schedule.min_nodes * weight)
        for region in spec.regions:
            if nodes and (not schedule.regions or region.name in schedule.regions):
                text = f"schedule {schedule.name} keeps at least {schedule.min_nodes} nodes"
                _raise_floor(floors, region.name, Floor(nodes, Reason.SCHEDULE_ACTIVE, text))
    return floors, tuple(problems)


def expected_of_meetings(
    spec: SFUClusterSpec,
    meetings: Iterable[Meeting],
    present: Callable[[str, str], int],
    now: datetime,
    seed: int,
) -> Expected:
    """What the meetings around now need. `present(room, region)`: participants who are there already."""
    active = [found for meeting in meetings if (found := _announced(spec, meeting, now, seed))]
    # Those with the least choice first, so that they find room where they must be.
    active.sort(key=lambda one: (len(one.permitted), one.start, one.name))
    room_left = {
        region.name: region.max_nodes * connections_per_node(spec) / _with_spare(spec)
        for region in spec.regions
    }
    wanted: dict[str, float] = {}
    missing: dict[str, float] = {}
    first: dict[str, _Announced] = {}
    count: dict[str, int] = {}
    unplaced: list[Held] = []
    for one in active:
        shares, rest = _place(spec, one, room_left)
        for region, connections in shares.items():
            wanted[region] = wanted.get(region, 0.0) + connections
            here = present(one.name, region) * CONNECTIONS_PER_PARTICIPANT
            missing[region] = missing.get(region, 0.0) + max(0.0, connections - here)
            first.setdefault(region, one)
            count[region] = count.get(region, 0) + 1
        if rest >= 1:
            text = (
                f"Meeting {one.name}: {rest / CONNECTIONS_PER_PARTICIPANT:.0f} of its expected participants "
                f"do not fit within maxNodes of {', '.join(one.permitted)}"
            )
            unplaced.append(Held(Reason.AT_MAX_NODES, text))
    floors = {
        region: Floor(
            ceil_nodes(nodes_for_connections(spec, connections)),
            Reason.MEETING_EXPECTED,
            _meeting_text(connections, first[region], count[region]),
        )
        for region, connections in wanted.items()
    }
    return Expected(floors, missing, tuple(unplaced))


@dataclass(frozen=True, slots=True)
class _Announced:
    name: str
    start: datetime
    permitted: tuple[str, ...]
    connections: Mapping[str, float]  # by region, as announced and ramped


def _announced(spec: SFUClusterSpec, meeting: Meeting, now: datetime, seed: int) -> _Announced | None:
    schedule, expected = meeting.spec.schedule, meeting.spec.expected_participants
    if schedule is None or (expected.total is None and not expected.by_region):
        return None
    if now < schedule.start - schedule.lead_time - START_ALLOWANCE - timedelta(seconds=MAX_JITTER_S):
        return None
    end = schedule.start + (OPEN_END if schedule.duration is None else schedule.duration)
    if meeting.status.ended_at is not None and is_ended(meeting):
        end = min(end, meeting.status.ended_at)
    jitter = _jitter(seed, meeting.metadata.name)
    weight = _weight(schedule.start - schedule.lead_time, end, now, jitter)
    permitted = _permitted(spec, meeting)
    if weight <= 0 or not permitted:
        return None
    split = _split(spec, meeting, permitted)
    connections = {name: count * weight * CONNECTIONS_PER_PARTICIPANT for name, count in split.items()}
    return _Announced(meeting.metadata.name, schedule.start, permitted, connections)


def _permitted(spec: SFUClusterSpec, meeting: Meeting) -> tuple[str, ...]:
    allowed = spec.placement.allowed_regions
    return tuple(
        region.name
        for region in spec.regions
        if meeting.spec.placement.permits(region.name) and (not allowed or region.name in allowed)
    )


def _split(spec: SFUClusterSpec, meeting: Meeting, permitted: Sequence[str]) -> dict[str, float]:
    """Participants by region: as announced; the rest of the total in proportion to maxNodes.

    A region where the meeting may not be, or that the fleet lacks, gives its share to the rest.
    """
    expected = meeting.spec.expected_participants
    named = {name: float(count) for name, count in expected.by_region.items() if name in permitted}
    total = float(max(expected.total or 0, sum(expected.by_region.values())))
    rest = total - sum(named.values())
    weights = {region.name: region.max_nodes for region in spec.regions if region.name in permitted}
    # Named regions have their number already; the rest comes from elsewhere, where there is an elsewhere.
    others = {name: weight for name, weight in weights.items() if name not in named} or weights
    for name, weight in others.items():
        named[name] = named.get(name, 0.0) + rest * weight / sum(others.values())
    return {name: count for name, count in named.items() if count > 0}


def _place(
    spec: SFUClusterSpec, one: _Announced, room_left: dict[str, float]
) -> tuple[dict[str, float], float]:
    """The meeting's connections by the region that has room for them, and how many have none."""
    shares: dict[str, float] = {}
    unplaced = 0.0
    for wanted, connections in sorted(one.connections.items()):
        rest = _take(room_left, shares, wanted, connections)
        if rest > 0:
            for region in nearest_regions(spec, wanted):
                if region in one.permitted:
                    rest = _take(room_left, shares, region, rest)
        unplaced += rest
    return shares, unplaced


def _take(room_left: dict[str, float], shares: dict[str, float], region: str, wanted: float) -> float:
    """Takes what the region has room for; returns the rest."""
    taken = min(wanted, room_left.get(region, 0.0))
    if taken > 0:
        room_left[region] -= taken
        shares[region] = shares.get(region, 0.0) + taken
    return wanted - taken


def _meeting_text(connections: float, first: _Announced, count: int) -> str:
    people = f"{math.ceil(connections / CONNECTIONS_PER_PARTICIPANT - 1e-9):,} participants are expected"
    if count == 1:
        return f"{people} at Meeting {first.name}, which starts at {format_time(first.start)}"
    return f"{people} at {count} Meetings"


def _weight(start: datetime, end: datetime, now: datetime, jitter: timedelta) -> float:
    """1 from the start (with allowance and jitter) to the end, then down to 0 within RAMP_DOWN."""
    if now < start - START_ALLOWANCE - jitter:
        return 0.0
    if now <= end + jitter:
        return 1.0
    return max(0.0, 1.0 - (now - end - jitter) / RAMP_DOWN)


def _jitter(seed: int, name: str) -> timedelta:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return timedelta(seconds=int.from_bytes(digest) / 2**64 * MAX_JITTER_S)


def _with_spare(spec: SFUClusterSpec) -> float:
    return 1 + spec.autoscaling.targets.buffer_percent / 100


def _raise_floor(floors: dict[str, Floor], region: str, new: Floor) -> None:
    if region not in floors or floors[region].nodes < new.nodes:
        floors[region] = new
