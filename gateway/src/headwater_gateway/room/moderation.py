"""What the application and the hosts do to a room and its participants. Decisions on its state only."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from headwater_api.ids import ParticipantIdentity, TrackSid
from headwater_api.reasons import Reason
from headwater_api.wellknown import ATTRIBUTE_ROLE
from livekit.protocol import models, room, rtc

from headwater_gateway.room import roster, subscriptions, tracks
from headwater_gateway.room.access import Role
from headwater_gateway.room.data import SERVER_IDENTITY, send_packet
from headwater_gateway.room.effects import EndSession
from headwater_gateway.room.model import Participant
from headwater_gateway.room.ports import RoomError
from headwater_gateway.room.requests import MAX_METADATA_BYTES, MAX_NAME_BYTES
from headwater_gateway.room.roster import SERVER_PREFIX
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.wire import leave, participant_info

RPC_VERSION: Final = 1
LOBBY_TOPIC: Final = "headwater.lobby"
VIDEO_SOURCES: Final = (models.TrackSource.CAMERA, models.TrackSource.SCREEN_SHARE)


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """What CreateRoom asks for; None or 0: as it is."""

    empty_timeout_s: int = 0
    departure_timeout_s: int = 0
    max_participants: int = 0
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class ParticipantChange:
    """What UpdateParticipant asks for; empty: as it is. An attribute with an empty value goes."""

    name: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    permission: models.ParticipantPermission | None = None


def participant_of(state: RoomState, identity: str) -> Participant:
    """RoomError: nobody of that identity is here."""
    found = state.of_identity(identity)
    if found is None:
        raise RoomError(Reason.PARTICIPANT_NOT_FOUND, "participant does not exist")
    return found


def set_room(state: RoomState, settings: RoomSettings) -> models.Room:
    """CreateRoom, UpdateRoomMetadata: the room's row afterwards."""
    _check_size("metadata", settings.metadata)
    config = state.config
    config = replace(
        config,
        empty_timeout_s=settings.empty_timeout_s or config.empty_timeout_s,
        departure_timeout_s=settings.departure_timeout_s or config.departure_timeout_s,
        max_participants=settings.max_participants or config.max_participants,
        metadata=settings.metadata or config.metadata,
    )
    if config != state.config:
        state.config = config
        state.tell_all_room()
    return state.info()


def set_metadata(state: RoomState, metadata: str) -> models.Room:
    """UpdateRoomMetadata; empty clears it."""
    _check_size("metadata", metadata)
    if metadata != state.config.metadata:
        state.config = replace(state.config, metadata=metadata)
        state.tell_all_room()
    return state.info()


def _check_size(what: str, text: str, limit: int = MAX_METADATA_BYTES) -> None:
    if len(text.encode()) > limit:
        raise RoomError(Reason.METADATA_TOO_LARGE, f"{what} is longer than {limit} bytes")


def remove(
    state: RoomState, identity: str, now: float, *, revoke_before_s: int = 0, ban: bool = False
) -> None:
    """Send a participant away. With `ban` it never comes back; `revoke_before_s`: only with a newer token."""
    who = ParticipantIdentity(identity)
    if (ban or revoke_before_s) and state.access.is_full:
        raise RoomError(Reason.RATE_LIMITED, "the room remembers too many identities already")
    participant = state.of_identity(identity)
    if participant is None and not ban:
        raise RoomError(Reason.PARTICIPANT_NOT_FOUND, "participant does not exist")
    if ban:
        state.access.ban(who)
    if revoke_before_s:
        state.access.revoked[who] = max(revoke_before_s, state.access.revoked.get(who, 0))
    if participant is not None:
        reason = models.DisconnectReason.PARTICIPANT_REMOVED
        farewell = leave(reason, rtc.LeaveRequest.DISCONNECT)
        state.effects.append(EndSession(participant.sid, farewell, "removed by a host"))
        roster.remove(state, participant.sid, reason, now)


def mute_track(state: RoomState, identity: str, track_sid: str, muted: bool, now: float) -> models.TrackInfo:
    """MutePublishedTrack. Only its owner turns a microphone or camera on again."""
    participant = participant_of(state, identity)
    track = participant.tracks.get(TrackSid(track_sid))
    if track is None:
        raise RoomError(Reason.TRACK_NOT_FOUND, "track is not found")
    if not muted and track.info.muted:
        raise RoomError(Reason.PUBLISH_NOT_ALLOWED, "remote unmute not enabled")
    if muted and not track.is_silenced:
        tracks.silence(state, participant, track, now)
    info = models.TrackInfo()
    info.CopyFrom(track.info)
    return info


def mute_all(state: RoomState, now: float, *, video: bool = False, but: Iterable[str] = ()) -> int:
    """Mute every microphone (or camera and screen) but those of hosts and of `but`. How many were."""
    spared, muted = set(but), 0
    wanted = VIDEO_SOURCES if video else (models.TrackSource.MICROPHONE,)
    for participant in list(state.participants.values()):
        if participant.role.moderates or participant.identity in spared:
            continue
        for track in participant.tracks.values():
            if track.info.source in wanted and not track.is_silenced:
                tracks.silence(state, participant, track, now)
                muted += 1
    return muted


def update_participant(
    state: RoomState, identity: str, change: ParticipantChange, now: float
) -> models.ParticipantInfo:
    """UpdateParticipant: name, metadata, attributes, permission. The row afterwards."""
    participant = participant_of(state, identity)
    _check_size("metadata", change.metadata)
    _check_size("name", change.name, MAX_NAME_BYTES)
    merged = {**participant.attributes, **change.attributes}
    _check_size("attributes", "".join(k + v for k, v in merged.items()))
    if any(k.startswith(SERVER_PREFIX) for k in change.attributes):
        raise RoomError(
            Reason.METADATA_NOT_ALLOWED, f"attributes that start with {SERVER_PREFIX!r} are set by the server"
        )
    participant.name = change.name or participant.name
    participant.metadata = change.metadata or participant.metadata
    participant.attributes = {k: v for k, v in merged.items() if v}
    if change.permission is not None:
        set_permission(state, participant, change.permission, now)
    state.announce(participant, now, at_once=True)
    return participant_info(participant)


def set_permission(
    state: RoomState, participant: Participant, permission: models.ParticipantPermission, now: float
) -> None:
    """From now on, and for its later joins: what it may not publish any more is taken away at once."""
    if state.access.is_full:
        raise RoomError(Reason.RATE_LIMITED, "the room remembers too many identities already")
    kept = models.ParticipantPermission()
    kept.CopyFrom(permission)
    participant.permission = kept
    state.access.permissions[participant.identity] = kept
    allowed = kept.can_publish_sources
    for track in list(participant.tracks.values()):
        if not kept.can_publish or (allowed and track.info.source not in allowed):
            tracks.unpublish(state, participant, track.sid, now)
    subscriptions.sync_subscriber(state, participant)


def leave_room(state: RoomState, identity: str, now: float) -> None:
    """A participant leaves by REST: its client is told to stop."""
    participant = participant_of(state, identity)
    reason = models.DisconnectReason.CLIENT_INITIATED
    farewell = leave(reason, rtc.LeaveRequest.DISCONNECT)
    state.effects.append(EndSession(participant.sid, farewell, "the participant left by the API"))
    roster.remove(state, participant.sid, reason, now)


def set_media(
    state: RoomState, identity: str, wanted: Mapping[models.TrackSource, bool | None], now: float
) -> Participant:
    """Turn a participant's own sources on or off, as far as it has published them."""
    participant = participant_of(state, identity)
    for track in list(participant.tracks.values()):
        on = wanted.get(track.info.source)
        if on is None or on is not track.info.muted:
            continue  # not asked for, or as asked already
        if track.info.source == models.TrackSource.SCREEN_SHARE and not on:
            tracks.unpublish(state, participant, track.sid, now)
        elif on:
            tracks.unsilence(state, participant, track, now)
        else:
            tracks.silence(state, participant, track, now)
    return participant


def set_role(state: RoomState, identity: str, role: Role, now: float) -> None:
    """Make somebody a co-host, or no more."""
    participant = participant_of(state, identity)
    if state.access.is_full:
        raise RoomError(Reason.RATE_LIMITED, "the room remembers too many identities already")
    state.access.roles[participant.identity] = participant.role = role
    participant.attributes[ATTRIBUTE_ROLE] = role
    state.announce(participant, now, at_once=True)


def set_lock(state: RoomState, locked: bool) -> None:
    """Nobody new comes in but hosts; or again whoever the Meeting lets in."""
    state.access.locked = locked


def knock(state: RoomState, identity: ParticipantIdentity, name: str, now_ms: int) -> None:
    """Somebody is in the waiting room: tell the hosts, once."""
    if not state.access.knock(identity, name, now_ms):
        return
    hosts = [p for p in state.participants.values() if p.role.moderates and p.moving_at is None]
    told = json.dumps({"event": "waiting", "identity": identity, "name": name})
    packet = models.DataPacket(
        participant_identity=SERVER_IDENTITY,
        user=models.UserPacket(
            payload=told.encode(), topic=LOBBY_TOPIC, participant_identity=SERVER_IDENTITY
        ),
    )
    if hosts:
        send_packet(state, hosts, packet)


def admit(state: RoomState, identities: Iterable[ParticipantIdentity], *, let_in: bool) -> None:
    """Let those who wait come in, or send them away."""
    if state.access.is_full:
        raise RoomError(Reason.RATE_LIMITED, "the room remembers too many identities already")
    if let_in:
        state.access.admit(list(identities))
    else:
        state.access.deny(list(identities))


def set_recorded(state: RoomState, recorded: bool) -> None:
    """A recording starts or has ended."""
    state.access.is_recorded = recorded
    state.tell_all_room()


def set_subscriptions(state: RoomState, identity: str, request: rtc.UpdateSubscription) -> None:
    """UpdateSubscriptions in somebody's name."""
    subscriptions.choose(state, participant_of(state, identity), request)


def send_data(state: RoomState, request: room.SendDataRequest) -> None:
    """SendData: a user packet of no participant, to those named or to all."""
    identities, sids = set(request.destination_identities), set(request.destination_sids)
    packet = models.DataPacket(
        kind=request.kind,
        destination_identities=request.destination_identities,
        user=models.UserPacket(
            payload=request.data,
            topic=request.topic if request.HasField("topic") else None,
            destination_identities=request.destination_identities,
            destination_sids=request.destination_sids,
            nonce=request.nonce,
        ),
    )
    targets = [
        p
        for p in state.participants.values()
        if p.moving_at is None
        and ((not identities and not sids) or p.identity in identities or p.sid in sids)
    ]
    send_packet(state, targets, packet, "_lossy" if request.kind == models.DataPacket.LOSSY else "_reliable")


def call(state: RoomState, request: room.PerformRpcRequest, request_id: str) -> None:
    """PerformRpc: ask the participant's client; its answer comes as a packet to the server's identity."""
    participant = participant_of(state, request.destination_identity)
    if participant.forwarded is not None:
        raise RoomError(Reason.PARTICIPANT_NOT_FOUND, "its client is in another room")
    packet = models.DataPacket(
        participant_identity=SERVER_IDENTITY,
        destination_identities=[participant.identity],
        rpc_request=models.RpcRequest(
            id=request_id,
            method=request.method,
            payload=request.payload,
            response_timeout_ms=request.response_timeout_ms,
            version=RPC_VERSION,
        ),
    )
    send_packet(state, [participant], packet)


def move(state: RoomState, identity: str, destination: models.Room, token: str, now: float) -> None:
    """Send a participant to another room: it gets that room's token and joins there at once."""
    participant = participant_of(state, identity)
    if participant.forwarded is not None:
        raise RoomError(Reason.PARTICIPANT_NOT_MOVABLE, "it is forwarded from another room: ask there")
    if participant.moving_at is not None:
        raise RoomError(Reason.PARTICIPANT_NOT_FOUND, "the participant is between two nodes: try again")
    state.tell(participant.sid, rtc.SignalResponse(refresh_token=token))
    moved = rtc.RoomMovedResponse(room=destination, token=token, participant=participant_info(participant))
    state.tell(participant.sid, rtc.SignalResponse(room_moved=moved))
    reason = models.DisconnectReason.MIGRATION
    farewell = leave(reason, rtc.LeaveRequest.RECONNECT)
    state.effects.append(EndSession(participant.sid, farewell, f"moved to room {destination.name}"))
    roster.remove(state, participant.sid, reason, now)
