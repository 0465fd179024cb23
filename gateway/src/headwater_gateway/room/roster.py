"""Who is in the room: joining, leaving, coming back, losing a node."""

from typing import Final

from headwater_api.ids import NodeId, ParticipantSid, RegionName
from headwater_api.wellknown import ATTRIBUTE_NODE, ATTRIBUTE_REGION, ATTRIBUTE_ROLE
from livekit.protocol import models, rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import crossings, migration
from headwater_gateway.room.access import Role
from headwater_gateway.room.effects import DropSession, EndSession, RoomEnded
from headwater_gateway.room.links import forget_node, sync_cascade
from headwater_gateway.room.migration import Find, Lead, nowhere
from headwater_gateway.room.model import (
    JoinRequest,
    Participant,
    Wish,
    publisher_transport,
    subscriber_transport,
)
from headwater_gateway.room.rules import permission_of
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import sync_dynacast, sync_subscriber, sync_tracks
from headwater_gateway.room.tracks import forget_tracks
from headwater_gateway.room.wire import leave, participant_info

SERVER_PREFIX: Final = "headwater."
# Who has closed its media connection and its WebSocket has left; a rejoin of its own may be on the way.
HUNG_UP_GRACE_S: Final = 1.0


def join(
    room: RoomState,
    request: JoinRequest,
    facts: NodeFacts,
    *,
    now: float,
    unix_ms: int,
    role: Role = Role.PARTICIPANT,
) -> Participant:
    """Put a participant on the roster and on its node. An older session of the identity goes first."""
    older = room.of_identity(request.identity)
    if older is not None:
        reason = models.DisconnectReason.DUPLICATE_IDENTITY
        if older.moving_at is None:
            farewell = leave(reason, rtc.LeaveRequest.DISCONNECT)
            room.effects.append(EndSession(older.sid, farewell, "the identity joined again"))
        _take_off(room, older, reason, now)
    participant = _participant(room, request, facts, role, unix_ms)
    if participant.is_http:
        participant.detached_at = now  # until its transport is up
    room.access.waiting.pop(request.identity, None)
    room.access.host_came = room.access.host_came or role.moderates
    room.nodes[facts.node_id] = facts
    room.participants[participant.sid] = participant
    room.by_identity[participant.identity] = participant.sid
    room.was_joined, room.empty_since = True, None
    sync_cascade(room)
    room.updates.put(participant_info(participant), hidden=participant.is_hidden, now=now)
    sync_subscriber(room, participant)
    return participant


def _participant(
    room: RoomState, request: JoinRequest, facts: NodeFacts, role: Role, unix_ms: int
) -> Participant:
    return Participant(
        sid=ParticipantSid(room.ids.sid("PA_")),
        identity=request.identity,
        name=request.name,
        metadata=request.metadata,
        attributes={
            **{k: v for k, v in request.attributes.items() if not k.startswith(SERVER_PREFIX)},
            ATTRIBUTE_REGION: facts.region,
            ATTRIBUTE_NODE: facts.node_id,
            **({ATTRIBUTE_ROLE: role} if room.config.is_declared or role is not Role.PARTICIPANT else {}),
        },
        permission=permission_of(room.config, room.access, request, role),
        kind=request.kind,
        region=facts.region,
        wish=Wish(request.region, request.rtts_ms),
        node_id=facts.node_id,
        joined_at_ms=unix_ms,
        auto_subscribe=request.auto_subscribe,
        protocol=request.protocol,
        client_protocol=request.client_protocol,
        role=role,
        is_http=request.is_http,
    )


def others(room: RoomState, sid: ParticipantSid) -> list[models.ParticipantInfo]:
    """The rows that this participant may see, without its own."""
    return [participant_info(p) for p in room.visible() if p.sid != sid]


def welcome(room: RoomState, participant: Participant, region: RegionName) -> rtc.JoinResponse:
    """What somebody who has just joined is told of the room."""
    return rtc.JoinResponse(
        room=room.info(),
        participant=participant_info(participant),
        other_participants=others(room, participant.sid),
        server_region=region,
    )


def tell_everything(room: RoomState, sid: ParticipantSid) -> None:
    """The whole roster and who speaks, for a client that may have missed updates."""
    participant = room.participants.get(sid)
    if participant is None:
        return
    rows = [participant_info(participant), *others(room, sid)]
    room.tell(sid, rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=rows)))
    speaking = room.speakers.active()
    if speaking:
        room.tell(sid, rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged(speakers=speaking)))


def remove(room: RoomState, sid: ParticipantSid, reason: models.DisconnectReason, now: float) -> None:
    """The participant is gone: its transports, tracks and row with it."""
    participant = room.participants.get(sid)
    if participant is None:
        return
    _take_off(room, participant, reason, now)
    sync_cascade(room)
    if not room.participants:
        room.empty_since = now


def _take_off(room: RoomState, participant: Participant, reason: models.DisconnectReason, now: float) -> None:
    del room.participants[participant.sid]
    if room.by_identity.get(participant.identity) == participant.sid:
        del room.by_identity[participant.identity]
    for sid in participant.tracks:
        room.tracks.pop(sid, None)
    forget_tracks(room, participant.tracks)
    _tell_left(room, participant, reason)
    gone, participant.tracks = participant.tracks, {}
    room.speakers.forget(participant.sid)
    room.quality.forget(participant.sid)
    crossings.cut(room, participant)
    if participant.moving_at is None and participant.forwarded is None:
        close_transports(room, participant)
    if not participant.is_hidden:
        room.announce(participant, now)
    sync_tracks(room, gone)
    sync_dynacast(room, participant.wanted)


def _tell_left(room: RoomState, participant: Participant, reason: models.DisconnectReason) -> None:
    """Tell the application of the tracks that go with it and of itself."""
    for track in participant.tracks.values():
        if track.is_live:
            room.happened("track_unpublished", participant, track)
    was_active = participant.state == models.ParticipantInfo.ACTIVE
    participant.state = models.ParticipantInfo.DISCONNECTED
    participant.disconnect_reason = reason
    room.happened("participant_left" if was_active else "participant_connection_aborted", participant)


def close_transports(room: RoomState, participant: Participant) -> None:
    """Tell its node that neither of its transports is needed any more."""
    for transport in (publisher_transport(participant.sid), subscriber_transport(participant.sid)):
        for node_id in participant.nodes:
            migration.close_on(room, node_id, transport)


def lose_node(room: RoomState, node_id: NodeId, why: str, now: float, find: Find = nowhere) -> int:
    """The node is dead: only its participants are led to another, or sent to rejoin. Their number.

    `find` names the other node; None: there is none now, and the client finds out what is open by joining.
    """
    if node_id not in room.nodes:
        return 0
    forget_node(room, node_id, dead=True)
    for participant in room.participants.values():
        if participant.migration is not None and participant.migration.source == node_id:
            participant.migration.source = None
    lost = [p for p in room.participants.values() if p.node_id == node_id and p.moving_at is None]
    for participant in lost:
        move(room, participant, find(participant), why, now)
    sync_cascade(room)
    return len(lost)


def move(room: RoomState, participant: Participant, lead: Lead | None, why: str, now: float) -> None:
    """Off its node: by migration where there is a node and its client can, else by a new join."""
    if participant.forwarded is not None:
        crossings.rehome(room, participant, lead.facts if lead is not None else None, now)
    elif lead is not None and migration.can_migrate(participant):
        migration.start(room, participant, lead, why, now)
    else:
        send_away(room, participant.sid, why, now)


def send_away(room: RoomState, sid: ParticipantSid, why: str, now: float) -> None:
    """Ask one participant to join anew, on another node: its own cannot keep it."""
    participant = room.participants.get(sid)
    if participant is None or participant.moving_at is not None:
        return
    close_transports(room, participant)
    room.moved += participant.migration is None
    participant.moving_at, participant.migration = now, None
    wanted, participant.wanted = participant.wanted, {}
    sync_dynacast(room, wanted)
    farewell = leave(models.DisconnectReason.MIGRATION, rtc.LeaveRequest.RECONNECT)
    room.effects.append(EndSession(sid, farewell, why))
    sync_cascade(room)


def expire(room: RoomState, now: float) -> None:
    """Take off those who did not come back in time."""
    for participant in list(room.participants.values()):
        detached, moving = participant.detached_at, participant.moving_at
        if moving is not None:
            if now - moving >= room.config.move_grace_s:
                remove(room, participant.sid, models.DisconnectReason.CONNECTION_TIMEOUT, now)
        elif participant.is_http and participant.state == models.ParticipantInfo.ACTIVE:
            continue  # its media says whether it is there
        elif detached is not None and now - detached >= _grace(room, participant):
            room.effects.append(EndSession(participant.sid, None, "the client did not come back"))
            remove(room, participant.sid, models.DisconnectReason.SIGNAL_CLOSE, now)
        elif overdue := migration.overdue(participant, now):
            send_away(room, participant.sid, overdue, now)


def _grace(room: RoomState, participant: Participant) -> float:
    return HUNG_UP_GRACE_S if participant.has_hung_up else room.config.resume_grace_s


def end(room: RoomState, reason: models.DisconnectReason, why: str, *, comes_back: bool = False) -> None:
    """The room is over: everybody is sent home (or to another gateway), every node is told."""
    if room.ended:
        return
    room.ended = why
    action = rtc.LeaveRequest.RECONNECT if comes_back else rtc.LeaveRequest.DISCONNECT
    for participant in room.participants.values():
        if participant.moving_at is None:
            room.effects.append(EndSession(participant.sid, leave(reason, action), why))
        if not comes_back:
            _tell_left(room, participant, reason)
    if not comes_back:
        room.happened("room_finished")
    room.participants.clear()
    room.by_identity.clear()
    room.tracks.clear()
    sync_cascade(room)
    room.effects.append(RoomEnded(why))


def hand_over(room: RoomState, why: str) -> None:
    """Another gateway has, or will have, the room: clients resume there, and the nodes' work goes on."""
    if room.ended:
        return
    room.ended = why
    for participant in room.participants.values():
        if participant.moving_at is None:
            room.effects.append(DropSession(participant.sid, why))
    room.effects.append(RoomEnded(why))


def end_if_empty(room: RoomState, now: float) -> None:
    """Close a room that nobody came to, or that everybody left."""
    if room.participants or room.ended:
        return
    since = room.empty_since if room.empty_since is not None else room.created_at
    limit = room.config.departure_timeout_s if room.was_joined else room.config.empty_timeout_s
    if now - since >= limit:
        end(room, models.DisconnectReason.ROOM_CLOSED, f"empty for {limit} s")
