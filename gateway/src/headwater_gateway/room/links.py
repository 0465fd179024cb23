"""The room's cascade: relay links between its nodes, and the link on which each track arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headwater_api.ids import LinkId, NodeId, TrackSid
from headwater_api.nodev1 import node_pb2
from headwater_planner.cascade import (
    AUTO,
    EMPTY,
    CascadePolicy,
    Link,
    Member,
    Topology,
    diff_links,
    plan_topology,
    routes,
)

from headwater_gateway.room.effects import ReleaseNode

if TYPE_CHECKING:
    from headwater_gateway.room.model import PublishedTrack
    from headwater_gateway.room.state import RoomState

KEY_BYTES: Final = 32  # AES-256-GCM
# A dead node is noticed sooner than that: what is left is a link that one end has lost.
REOPEN_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class OpenLink:
    """A link as it was opened at both ends; the keys are not kept."""

    link: Link
    link_id: LinkId
    down_since: float | None = None  # monotonic seconds; None: up, or not heard of yet


@dataclass(slots=True)
class CascadeState:
    topology: Topology = EMPTY
    open: dict[Link, OpenLink] = field(default_factory=dict)
    # What each node was told: remote track → the link that it arrives on.
    routed: dict[NodeId, dict[TrackSid, LinkId]] = field(default_factory=dict)
    # On their way out: no hubs while their region has another.
    avoid: frozenset[NodeId] = frozenset()
    policy: CascadePolicy = AUTO


def sync_cascade(room: RoomState) -> None:
    """Bring nodes, links and routes in line with the roster and the tracks. Idempotent."""
    counts: dict[NodeId, int] = {}
    crosses = False
    for participant in room.participants.values():
        crosses = crosses or participant.forwarded is not None
        for node_id in participant.nodes if participant.moving_at is None else ():
            counts[node_id] = counts.get(node_id, 0) + 1
    if not crosses and _is_alone(room, counts):
        return
    members = [
        Member(node_id, facts.region, counts[node_id])
        for node_id, facts in room.nodes.items()
        if node_id in counts
    ]
    before = room.cascade.topology
    after = plan_topology(members, before, room.cascade.avoid, room.cascade.policy)
    change = diff_links(before, after)
    room.cascade.topology = after
    for link in change.opened:
        _open(room, link)
    _sync_routes(room, after)
    for link in change.closed:
        _close(room, link)
    for node_id in [n for n in room.nodes if n not in counts]:
        room.command(node_id, [node_pb2.Command(close_room=node_pb2.CloseRoom())])
        forget_node(room, node_id, dead=False)


def _is_alone(room: RoomState, counts: dict[NodeId, int]) -> bool:
    """One node as before: there is nothing to link, to route or to leave. Most rooms are so."""
    known, cascade = room.cascade.topology.region_of, room.cascade
    is_same = len(counts) == 1 and room.nodes.keys() == known.keys() == counts.keys()
    return is_same and not cascade.open and not any(cascade.routed.values())


def forget_node(room: RoomState, node_id: NodeId, *, dead: bool) -> None:
    """The node is out of the room."""
    if room.nodes.pop(node_id, None) is not None:
        room.effects.append(ReleaseNode(node_id, dead=dead))
    room.cascade.routed.pop(node_id, None)


def mark_link(room: RoomState, link_id: LinkId, now: float, *, is_up: bool) -> None:
    """Remember what a node said of a link. Both ends say it; the first word of a fall counts."""
    for link, known in room.cascade.open.items():
        if known.link_id == link_id:
            since = None if is_up else (known.down_since if known.down_since is not None else now)
            room.cascade.open[link] = OpenLink(link, link_id, since)
            return


def mend_links(room: RoomState, now: float) -> list[LinkId]:
    """Open anew what has been down for long though both its nodes live. The links that were given up."""
    stale = [
        known.link_id
        for known in room.cascade.open.values()
        if known.down_since is not None and now - known.down_since >= REOPEN_AFTER_S
    ]
    for link_id in stale:
        reopen_link(room, link_id)
    return stale


def reopen_link(room: RoomState, link_id: LinkId) -> None:
    """Open a link anew, with fresh keys: one end has lost it though both nodes live."""
    for link, known in list(room.cascade.open.items()):
        if known.link_id == link_id:
            _close(room, link)
            _open(room, link)
            _sync_routes(room, room.cascade.topology)


def _open(room: RoomState, link: Link) -> None:
    link_id = LinkId(room.ids.sid("LK_"))
    token = room.ids.number()
    key_ab, key_ba = room.ids.secret(KEY_BYTES), room.ids.secret(KEY_BYTES)
    for node, peer, tx_key, rx_key in ((link.a, link.b, key_ab, key_ba), (link.b, link.a, key_ba, key_ab)):
        command = node_pb2.OpenRelay(
            link_id=link_id,
            peer_node_id=peer,
            peer_address=room.nodes[peer].media_addresses[0],
            tx_key=tx_key,
            rx_key=rx_key,
            link_token=token,
        )
        room.command(node, [node_pb2.Command(open_relay=command)])
    room.cascade.open[link] = OpenLink(link, link_id)


def _close(room: RoomState, link: Link) -> None:
    known = room.cascade.open.pop(link, None)
    if known is None:
        return
    for node in (link.a, link.b):
        command = node_pb2.Command(close_relay=node_pb2.CloseRelay(link_id=known.link_id))
        room.command(node, [command])


def _sync_routes(room: RoomState, topology: Topology) -> None:
    """Tell each node which remote tracks there are and where they come from: only what has changed."""
    wanted: dict[NodeId, dict[TrackSid, LinkId]] = {node: {} for node in topology.region_of}
    by_origin: dict[NodeId, dict[NodeId, Link]] = {}
    for track in room.tracks.values():
        origin = room.node_of_track(track)
        if not track.is_live or origin is None or origin not in topology.region_of:
            continue
        if origin not in by_origin:
            by_origin[origin] = routes(topology, origin)
        for node, link in by_origin[origin].items():
            wanted[node][track.sid] = room.cascade.open[link].link_id
        crossing = room.crossing_of(track)
        if crossing is not None and crossing.near == origin:
            wanted[origin][track.sid] = crossing.link_id
    for node, table in wanted.items():
        told = room.cascade.routed.get(node, {})
        commands = [_remove(track) for track in told if track not in table]
        commands += [
            _add(room.tracks[track], link_id)
            for track, link_id in table.items()
            if told.get(track) != link_id
        ]
        room.command(node, commands)
        room.cascade.routed[node] = table


def _remove(track: TrackSid) -> node_pb2.Command:
    return node_pb2.Command(remove_remote_track=node_pb2.RemoveRemoteTrack(track_id=track))


def _add(track: PublishedTrack, link_id: LinkId) -> node_pb2.Command:
    layers = track.section.layers if track.section is not None else ()
    command = node_pb2.AddRemoteTrack(
        track_id=track.sid, kind=track.kind, link_id=link_id, layers=layers, voice=track.is_voice
    )
    return node_pb2.Command(add_remote_track=command)
