"""A room goes on under another gateway: from what nodes hold to a state that can be worked with. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from headwater_api.ids import NodeId, RoomId
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import access, roster, snapshot
from headwater_gateway.room.effects import EndSession
from headwater_gateway.room.links import sync_cascade
from headwater_gateway.room.merge import merge, stricter
from headwater_gateway.room.model import IdSource, Participant, RoomConfig
from headwater_gateway.room.snapshot import Snapshot, SnapshotError
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import sync_tracks
from headwater_gateway.room.wire import leave

log = structlog.get_logger(__name__)

# Clients that lost their gateway may have tried for a while: they have so much longer to come back.
RETURN_S: Final = 20.0
# More changes than an owner makes to one row between two snapshots: clients ignore rows of an older version.
VERSION_LEAP: Final = 1000


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What is left of a room whose owner is gone."""

    epoch: int  # the highest that anybody has seen
    snapshots: tuple[Snapshot, ...]  # of the highest claim first; none that another one contains
    version: int
    seen: Mapping[str, int]


def read_inheritance(held: Iterable[node_pb2.RoomHeld], blobs: Iterable[bytes] = ()) -> Inheritance:
    """From what nodes hold, and blobs from elsewhere. A blob that cannot be used is left out."""
    rows = list(held)
    snapshots = []
    for blob in (*(row.snapshot for row in rows if row.snapshot), *blobs):
        try:
            snapshots.append(snapshot.decode(blob))
        except SnapshotError as error:
            log.warning("room.snapshot_unusable", reason=str(error))
    version, seen = snapshot.inherited(snapshots)
    epochs = [row.epoch for row in rows] + [s.claim.epoch for s in snapshots]
    versions = [row.snapshot_version for row in rows]
    return Inheritance(max(epochs, default=0), snapshot.newest(snapshots), max([version, *versions]), seen)


def rebuild(inheritance: Inheritance, room_id: RoomId, ids: IdSource, now: float) -> RoomState | None:
    """The room as its last owners knew it; None: nothing usable is left."""
    states = []
    for found in inheritance.snapshots:
        if found.room_id != room_id:
            continue
        try:
            states.append(snapshot.restore(found, ids, now))
        except SnapshotError as error:
            log.warning("room.snapshot_unusable", room=room_id, reason=str(error))
    return merge(states) if states else None


def adopt(
    room: RoomState,
    alive: Mapping[NodeId, NodeFacts],
    holders: frozenset[NodeId],
    config: RoomConfig | None,
    now: float,
) -> None:
    """Make a rebuilt room ready to go on.

    `alive`: nodes that are up; `holders`: those of them that may have the room's transports. Clients are
    away until they resume. `config`: what the Meeting says now; None: nothing.
    """
    if config is not None:
        room.config = config
    room.nodes.update({node_id: alive[node_id] for node_id in holders if node_id in alive})
    room.ended, room.housekeeping_due = "", now
    for participant in list(room.participants.values()):
        _await_return(participant, now)
        if participant.identity in room.access.banned:
            roster.remove(room, participant.sid, models.DisconnectReason.PARTICIPANT_REMOVED, now)
        elif participant.node_id not in room.nodes and participant.moving_at is None:
            participant.moving_at = now
            participant.wanted.clear()
    if not room.participants and room.empty_since is None:
        room.empty_since = now
    sync_cascade(room)


def _await_return(participant: Participant, now: float) -> None:
    """Its client is away. One that was on its way to another node has to resume there anew."""
    participant.version += VERSION_LEAP
    if participant.forwarded is not None:  # it has no client here
        participant.forwarded.heard_at = now
        return
    participant.is_awaited = True
    participant.detached_at = now + RETURN_S
    if participant.migration is not None:
        participant.migration.since, participant.migration.back_at = now + RETURN_S, None


def merge_in(room: RoomState, other: RoomState | None, alive: Mapping[NodeId, NodeFacts], now: float) -> None:
    """A live room takes in the other half of a split: nodes, people, and what guards the door of either."""
    room.nodes.update(alive)
    if other is not None:
        room.access = access.merge(room.access, other.access)
        room.config = stricter(room.config, other.config)
        for participant in other.participants.values():
            _take_in(room, participant, now)
        for identity in room.access.banned:
            banned = room.of_identity(identity)
            if banned is not None:
                farewell = leave(models.DisconnectReason.PARTICIPANT_REMOVED, rtc.LeaveRequest.DISCONNECT)
                room.effects.append(EndSession(banned.sid, farewell, "banned in the other half of the room"))
                roster.remove(room, banned.sid, models.DisconnectReason.PARTICIPANT_REMOVED, now)
        room.tell_all_room()
    sync_cascade(room)
    sync_tracks(room, list(room.tracks))


def _take_in(room: RoomState, participant: Participant, now: float) -> None:
    known = room.of_identity(participant.identity)
    if participant.sid in room.participants or participant.node_id not in room.nodes:
        return
    if known is not None and (known.joined_at_ms, known.sid) > (participant.joined_at_ms, participant.sid):
        roster.close_transports(room, participant)
        return
    if known is not None:
        farewell = leave(models.DisconnectReason.DUPLICATE_IDENTITY, rtc.LeaveRequest.DISCONNECT)
        room.effects.append(
            EndSession(known.sid, farewell, "the identity joined the other half of the room later")
        )
        roster.remove(room, known.sid, models.DisconnectReason.DUPLICATE_IDENTITY, now)
    _await_return(participant, now)
    room.participants[participant.sid] = participant
    room.by_identity[participant.identity] = participant.sid
    room.tracks.update(participant.tracks)
    room.announce(participant, now)
