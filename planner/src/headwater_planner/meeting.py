"""Meeting.status from the fleet and the nodes' reports, and when an ended Meeting is deleted.

A report that is missing holds what was known: a Meeting never ends because the operator cannot hear.
Nobody is put out of a meeting here: after the scheduled end it ends once it is empty.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from headwater_api import meeting as api
from headwater_api.conditions import Condition, Status, find_condition, is_true, set_condition
from headwater_api.meeting import Meeting, MeetingLink, MeetingNode, MeetingStatus, Schedule
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUCluster
from headwater_api.units import format_duration, format_time

from headwater_planner.place import CONNECTIONS_PER_PARTICIPANT
from headwater_planner.scale.need import START_ALLOWANCE, ceil_nodes, nodes_for_connections
from headwater_planner.supply import nodes_text
from headwater_planner.world import NodeLoad

MAX_NODES: Final = 256
MAX_LINKS: Final = 1024
# An announced Meeting whose nodes are starting is looked at so often.
RECHECK: Final = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class MeetingWorld:
    """All that matters for one Meeting.

    `loads`: last reports of the fleet's living nodes. `complete`: the report of every node that has started
    and not ended is fresh.
    """

    meeting: Meeting
    cluster: SFUCluster | None
    loads: tuple[NodeLoad, ...] = ()
    complete: bool = True
    join_url: str = ""


@dataclass(frozen=True, slots=True)
class MeetingPlan:
    """The status to write; `delete` when its time is over; `again_at`: look again then."""

    status: MeetingStatus
    delete: bool = False
    because: str = ""
    again_at: datetime | None = None

    def __str__(self) -> str:
        return f"Delete the Meeting: {self.because}" if self.delete else "Keep the Meeting"


@dataclass(frozen=True, slots=True)
class _Presence:
    """Who is in the room, where."""

    participants: int
    nodes: tuple[MeetingNode, ...]
    links: tuple[MeetingLink, ...]


def plan_meeting(world: MeetingWorld, now: datetime) -> MeetingPlan:
    """The status as of `now` (whole seconds), and what to do."""
    now = now.replace(microsecond=0)
    meeting, old = world.meeting, world.meeting.status
    ended = find_condition(old.conditions, api.ENDED)
    if ended is not None and ended.is_true and old.ended_at is not None:
        return _after_end(meeting, old.ended_at, now)
    presence = _presence(world)
    started_at = old.started_at or (now if presence.participants else None)
    empty_since = None if presence.participants or started_at is None else old.empty_since or now
    end = _end(meeting, presence, empty_since, now)
    verdicts = (
        _scheduled(meeting.spec.schedule, now),
        _provisioned(world, now),
        _active(presence),
        end or _condition(api.ENDED, False, Reason.NOT_ENDED, ""),
    )
    status = old.model_copy(
        update={
            "observed_generation": meeting.metadata.generation,
            "conditions": _merge(old.conditions, verdicts, meeting.metadata.generation, now),
            "join_url": world.join_url,
            "participants": presence.participants,
            "nodes": presence.nodes,
            "links": presence.links,
            "node_count": len(presence.nodes),
            "link_count": len(presence.links),
            "started_at": started_at,
            "empty_since": empty_since,
            "ended_at": now if end else None,
        }
    )
    return MeetingPlan(status, again_at=_again_at(meeting, status, now))


def _after_end(meeting: Meeting, ended_at: datetime, now: datetime) -> MeetingPlan:
    """An ended Meeting stays as it is until its time to live is over."""
    status = meeting.status.model_copy(update={"observed_generation": meeting.metadata.generation})
    ttl = meeting.spec.ttl_after_ended
    if ttl is None:
        return MeetingPlan(status)
    if now < ended_at + ttl:
        return MeetingPlan(status, again_at=ended_at + ttl)
    because = f"it ended at {format_time(ended_at)} and ttlAfterEnded is {format_duration(ttl)}"
    return MeetingPlan(status, delete=True, because=because)


def _presence(world: MeetingWorld) -> _Presence:
    room = world.meeting.metadata.name
    serving = [load for load in world.loads if any(entry.room == room for entry in load.rooms)]
    counts = {load.node: sum(e.participants for e in load.rooms if e.room == room) for load in serving}
    links = _links(room, serving)
    regions = {load.node: load.region for load in world.loads}
    hubs = {
        node
        for link in links
        for node in (link.source, link.target)
        if regions.get(link.source) != regions.get(link.target)
    }
    nodes = tuple(
        MeetingNode(
            name=load.node,
            region=load.region,
            role="Hub" if load.node in hubs else "Leaf",
            participants=counts[load.node],
        )
        for load in sorted(serving, key=lambda load: (load.region, load.node))
    )
    seen = _Presence(sum(counts.values()), nodes[:MAX_NODES], links[:MAX_LINKS])
    old = world.meeting.status
    if not world.complete and seen.participants < old.participants:
        return _Presence(old.participants, old.nodes, old.links)
    return seen


def _links(room: str, serving: Iterable[NodeLoad]) -> tuple[MeetingLink, ...]:
    """Each link once; Up when every end that reports it says so."""
    ends: dict[str, tuple[str, str]] = {}
    up: dict[str, bool] = {}
    for load in serving:
        for link in load.links:
            if link.room == room and link.peer:
                first, second = sorted((load.node, link.peer))
                ends[link.link] = (first, second)
                up[link.link] = up.get(link.link, True) and link.up
    states: Mapping[bool, str] = {True: "Up", False: "Down"}
    return tuple(
        MeetingLink.model_validate({"from": ends[link][0], "to": ends[link][1], "state": states[up[link]]})
        for link in sorted(ends, key=lambda link: (ends[link], link))
    )


def _end(
    meeting: Meeting, presence: _Presence, empty_since: datetime | None, now: datetime
) -> Condition | None:
    """Ended=True when it is over now, else None."""
    if presence.participants:
        return None
    schedule, timeout = meeting.spec.schedule, meeting.spec.empty_timeout
    over = _over_at(schedule)
    if over is not None and now >= over:
        text = f"the scheduled end was {format_time(over)} and nobody is in the room"
        return _condition(api.ENDED, True, Reason.DURATION_ELAPSED, text)
    if schedule is not None and now < schedule.start:
        return None  # an early visit does not use the meeting up
    if empty_since is not None and now >= empty_since + timeout:
        text = f"nobody was in the room for {format_duration(timeout)}"
        return _condition(api.ENDED, True, Reason.EMPTY_TIMEOUT_ELAPSED, text)
    return None


def _over_at(schedule: Schedule | None) -> datetime | None:
    if schedule is None or schedule.duration is None:
        return None
    return schedule.start + schedule.duration


def _again_at(meeting: Meeting, status: MeetingStatus, now: datetime) -> datetime | None:
    """The next time at which the clock alone changes the answer."""
    if status.ended_at is not None:
        ttl = meeting.spec.ttl_after_ended
        return None if ttl is None else status.ended_at + ttl
    schedule = meeting.spec.schedule
    times = [schedule.start if schedule else None, _over_at(schedule), _ordered_at(meeting)]
    provisioned = find_condition(status.conditions, api.PROVISIONED)
    waits = provisioned is not None and provisioned.reason == Reason.WAITING_FOR_CAPACITY.value
    if waits and _ordered_at(meeting) is not None:
        times.append(now + RECHECK)  # each node that becomes ready does not wake every Meeting of its fleet
    if status.empty_since is not None:
        times.append(status.empty_since + meeting.spec.empty_timeout)
    return min((time for time in times if time is not None and time > now), default=None)


def _scheduled(schedule: Schedule | None, now: datetime) -> Condition:
    if schedule is None:
        text = "no schedule: the room is open from the Meeting's creation"
        return _condition(api.SCHEDULED, False, Reason.NOT_SCHEDULED, text)
    if now < schedule.start:
        return _condition(
            api.SCHEDULED, True, Reason.BEFORE_START, f"starts at {format_time(schedule.start)}"
        )
    return _condition(api.SCHEDULED, False, Reason.STARTED, f"started at {format_time(schedule.start)}")


def _active(presence: _Presence) -> Condition:
    if presence.participants:
        text = f"{presence.participants} participants on {len(presence.nodes)} nodes"
        return _condition(api.ACTIVE, True, Reason.PARTICIPANTS_PRESENT, text)
    return _condition(api.ACTIVE, False, Reason.ROOM_EMPTY, "nobody is in the room")


def _provisioned(world: MeetingWorld, now: datetime) -> Condition:
    """Whether the fleet can take it; where it cannot, which field says so."""
    meeting, cluster = world.meeting, world.cluster
    if cluster is None:
        text = (
            f'spec.clusterRef.name: there is no SFUCluster "{meeting.spec.cluster_ref.name}" '
            f'in namespace "{meeting.metadata.namespace}"'
        )
        return _condition(api.PROVISIONED, False, Reason.CLUSTER_NOT_FOUND, text)
    unknown = _unknown_region(meeting, cluster)
    if unknown:
        return _condition(api.PROVISIONED, False, Reason.REGION_UNKNOWN, unknown)
    permitted = _permitted(meeting, cluster)
    if not permitted:
        text = (
            "spec.placement: allow, deny and pin leave none of the regions that "
            f'SFUCluster "{cluster.metadata.name}" offers ({_offered(cluster)})'
        )
        return _condition(api.PROVISIONED, False, Reason.NO_REGION_ALLOWED, text)
    ready = {region.name for region in cluster.status.regions if region.ready > 0}
    pinned = meeting.spec.placement.pin
    missing = [region for region in permitted if region not in ready]
    if len(missing) == len(permitted) or (pinned and missing):
        text = f"no SFU node is ready in {', '.join(missing)}"
        return _condition(api.PROVISIONED, False, Reason.WAITING_FOR_CAPACITY, text)
    short = _short(meeting, cluster, permitted, now)
    if short is not None:
        return short
    text = f"SFU nodes are ready in {', '.join(region for region in permitted if region in ready)}"
    return _condition(api.PROVISIONED, True, Reason.CAPACITY_READY, text)


def _short(
    meeting: Meeting, cluster: SFUCluster, permitted: Sequence[str], now: datetime
) -> Condition | None:
    """Provisioned=False while an announced meeting's nodes are not ordered yet, or not ready yet."""
    schedule, expected = meeting.spec.schedule, meeting.spec.expected_participants
    people = max(expected.total or 0, sum(expected.by_region.values()))
    if schedule is None or not people or now >= schedule.start or cluster.spec.autoscaling.mode == "Fixed":
        return None
    needed = ceil_nodes(nodes_for_connections(cluster.spec, people * CONNECTIONS_PER_PARTICIPANT))
    ready = sum(region.ready for region in cluster.status.regions if region.name in permitted)
    if ready >= needed:
        return None
    ordered_at = _ordered_at(meeting)
    if ordered_at is not None and now < ordered_at:  # no figure that changes with the fleet: this may be long
        when = format_time(ordered_at)
        text = f"the {nodes_text(needed)} that {people:,} participants need are ordered by {when}"
        return _condition(api.PROVISIONED, False, Reason.WAITING_FOR_LEAD_TIME, text)
    text = f"{ready} of the {nodes_text(needed)} that {people:,} participants need are ready"
    return _condition(api.PROVISIONED, False, Reason.WAITING_FOR_CAPACITY, text)


def _ordered_at(meeting: Meeting) -> datetime | None:
    """When its nodes are ordered at the latest; None: it does not announce any."""
    schedule, expected = meeting.spec.schedule, meeting.spec.expected_participants
    if schedule is None or (not expected.total and not expected.by_region):
        return None
    return schedule.start - schedule.lead_time - START_ALLOWANCE


def _unknown_region(meeting: Meeting, cluster: SFUCluster) -> str:
    """The first field that names a region which the cluster lacks and which the Meeting depends on."""
    placement = meeting.spec.placement
    known = {region.name for region in cluster.spec.regions}
    for index, region in enumerate(placement.pin):
        if region not in known:
            return _unknown_text(f"spec.placement.pin[{index}]", region, cluster)
    if not placement.pin and placement.allow and not known & set(placement.allow):
        return _unknown_text("spec.placement.allow[0]", placement.allow[0], cluster)
    return ""


def _unknown_text(field: str, region: str, cluster: SFUCluster) -> str:
    names = ", ".join(sorted(region.name for region in cluster.spec.regions))
    return f'{field}: SFUCluster "{cluster.metadata.name}" has no region "{region}" (it has {names})'


def _permitted(meeting: Meeting, cluster: SFUCluster) -> list[str]:
    allowed = cluster.spec.placement.allowed_regions
    return sorted(
        region.name
        for region in cluster.spec.regions
        if meeting.spec.placement.permits(region.name) and (not allowed or region.name in allowed)
    )


def _offered(cluster: SFUCluster) -> str:
    allowed = cluster.spec.placement.allowed_regions
    return ", ".join(sorted(r.name for r in cluster.spec.regions if not allowed or r.name in allowed))


def _condition(type_: str, status: bool, reason: Reason, message: str) -> Condition:
    return Condition(type=type_, status=Status.of(status), reason=reason.value, message=message)


def _merge(
    old: Sequence[Condition], new: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    merged = tuple(old)
    for condition in new:
        stamped = replace(condition, observed_generation=generation)
        merged = set_condition(merged, stamped, now)
    return merged


def is_ended(meeting: Meeting) -> bool:
    """Whether the Meeting is over for good."""
    return is_true(meeting.status.conditions, api.ENDED)
