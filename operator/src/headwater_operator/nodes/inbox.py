"""The last report of every SFU node, in memory, with the time of its arrival.

A report is never forgotten while its Pod exists: old is not zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from headwater_api.nodev1 import node_pb2
from headwater_api.wellknown import DRAIN_REASON_STOPPING
from headwater_planner.reached import Tries, tried
from headwater_planner.world import FRESH_S, STALLED_S, SUSTAINED_S, LinkLoad, NodeLoad, RoomLoad

NodeKey = tuple[str, str]  # namespace, Pod name


@dataclass(frozen=True, slots=True)
class _Arrival:
    uid: str
    at: float
    load: NodeLoad
    presence: frozenset[tuple[str, str, int]]
    empty_since: float | None  # since when each report said so
    tries: Tries
    p95s: tuple[tuple[float, float], ...]  # times and latencies, unbroken, of the last SUSTAINED_S


@dataclass(frozen=True, slots=True)
class Change:
    """What a report or its loss changed: rooms whose presence differs, and whether the fleet's figures do."""

    node: NodeKey
    rooms: frozenset[str]


def load_of(report: node_pb2.NodeReport) -> NodeLoad:
    """The planner's view of a report, with age 0."""
    return NodeLoad(
        node=report.node_id,
        region=report.region,
        age_s=0.0,
        draining=report.draining,
        drain_reason=report.drain.reason,
        drain_deadline=_deadline(report.drain.deadline_ms),
        stopping=report.drain.reason == DRAIN_REASON_STOPPING,
        stalled_s=report.media_stalled_ms / 1000.0,
        version=report.version,
        wire_version=report.wire_version,
        min_wire_version=report.min_wire_version,
        participants=report.participants,
        connections=report.connections,
        max_connections=report.max_connections,
        cpu_percent=report.cpu_percent,
        p95_ms=report.forward_p95_us / 1000.0,
        egress_mbps=report.tx_mbps,
        packets_per_second=report.tx_pps,
        queue_percent=report.buffer_percent,
        transports_created=report.transports_created,
        rooms=tuple(
            sorted((RoomLoad(r.room_id, r.participants) for r in report.rooms), key=lambda r: r.room)
        ),
        links=tuple(
            sorted(
                (
                    LinkLoad(link.link_id, link.room_id, link.peer_node_id, link.up, link.silent_ms / 1000.0)
                    for link in report.links
                ),
                key=lambda link: link.link,
            )
        ),
    )


def _deadline(unix_ms: int) -> datetime | None:
    """The time of a report's deadline; None where there is none, or an absurd one."""
    try:
        return datetime.fromtimestamp(unix_ms / 1000.0, UTC) if unix_ms > 0 else None
    except (OverflowError, ValueError, OSError):
        return None


class Inbox:
    """`on_change` is called within the event loop and must not wait."""

    def __init__(self, *, monotonic: Callable[[], float], on_change: Callable[[Change], None]) -> None:
        self._monotonic = monotonic
        self._on_change = on_change
        self._arrivals: dict[NodeKey, _Arrival] = {}
        self._serving: dict[tuple[str, str], set[str]] = {}  # nodes' names by namespace and room

    def put(self, key: NodeKey, uid: str, load: NodeLoad) -> None:
        """Takes a report of the Pod `uid`."""
        last = self._arrivals.get(key)
        old = last if last is not None and last.uid == uid else None
        now = self._monotonic()
        # What was between two reports with a silence in between is not known.
        known = old if old is not None and self._is_fresh(old) else None
        empty_since = (known.empty_since if known is not None else None) or now
        p95s = _appended(known.p95s if known is not None else (), now, load.p95_ms)
        before, after = old.presence if old is not None else None, _presence(load)
        tries = tried(old.tries if old is not None else None, load.transports_created, load.connections, now)
        empty = empty_since if load.empty else None
        self._arrivals[key] = _Arrival(uid, now, load, after, empty, tries, p95s)
        if before is None or before != after or known is None:
            self._index(key, last.load if last is not None else None, load)
            rooms = {room for room, *_ in (before or frozenset()) ^ after}
            self._on_change(Change(key, frozenset(rooms - {""})))

    def forget(self, key: NodeKey) -> None:
        """Its Pod is gone."""
        old = self._arrivals.pop(key, None)
        if old is not None:
            self._index(key, old.load, None)
            self._on_change(Change(key, frozenset(room.room for room in old.load.rooms)))

    def serving(self, namespace: str, room: str) -> list[str]:
        """The names of the nodes whose last report tells of the room, in order."""
        return sorted(self._serving.get((namespace, room), ()))

    def get(self, key: NodeKey, uid: str) -> NodeLoad | None:
        """The last report of that Pod, aged; None where it never reported."""
        arrival = self._arrivals.get(key)
        if arrival is None or arrival.uid != uid:
            return None
        now = self._monotonic()
        empty_s = 0.0 if arrival.empty_since is None else now - arrival.empty_since
        lasted = arrival.at - arrival.p95s[0][0] >= SUSTAINED_S
        lowest = min(p95_ms for _, p95_ms in arrival.p95s) if lasted else 0.0
        tries = arrival.tries
        return replace(
            arrival.load,
            age_s=now - arrival.at,
            empty_s=empty_s,
            sustained_p95_ms=lowest,
            in_vain=arrival.load.transports_created - tries.base,
            in_vain_s=now - tries.since if tries.since is not None else 0.0,
        )

    def is_fresh(self, key: NodeKey, uid: str) -> bool:
        """Whether the last report of that Pod still tells about now."""
        arrival = self._arrivals.get(key)
        return arrival is not None and arrival.uid == uid and self._is_fresh(arrival)

    def _index(self, key: NodeKey, old: NodeLoad | None, new: NodeLoad | None) -> None:
        """Thousands of Meetings ask who serves them: none of them looks through all reports."""
        namespace, node = key
        before = {room.room for room in old.rooms} if old is not None else set()
        after = {room.room for room in new.rooms} if new is not None else set()
        for room in after - before:
            self._serving.setdefault((namespace, room), set()).add(node)
        for room in before - after:
            nodes = self._serving[namespace, room]
            nodes.discard(node)
            if not nodes:
                del self._serving[namespace, room]

    def _is_fresh(self, arrival: _Arrival) -> bool:
        return self._monotonic() - arrival.at <= FRESH_S


def _appended(
    p95s: tuple[tuple[float, float], ...], now: float, p95_ms: float
) -> tuple[tuple[float, float], ...]:
    """With one more, and no more of the old ones than reach back for the whole time."""
    first = 0
    while first + 1 < len(p95s) and now - p95s[first + 1][0] >= SUSTAINED_S:
        first += 1
    return (*p95s[first:], (now, p95_ms))


def _presence(load: NodeLoad) -> frozenset[tuple[str, str, int]]:
    """What makes a report worth a look at once; the other figures wait for the next tick."""
    rooms = {(room.room, "", room.participants) for room in load.rooms}
    links = {(link.room, link.link, int(link.up)) for link in load.links}
    flags = {
        "draining": load.draining,
        "empty": load.empty,
        "stopping": load.stopping,
        "stalled": load.stalled_s >= STALLED_S,
    }
    node = {("", flag, int(is_set)) for flag, is_set in flags.items()}
    return frozenset(rooms | links | node)
