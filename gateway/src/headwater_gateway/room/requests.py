"""What clients ask of the room, beyond joining and negotiating."""

from typing import Final

from headwater_api.ids import ParticipantSid, TrackSid
from livekit.protocol import models, rtc

from headwater_gateway.room import subscriptions, tracks
from headwater_gateway.room.model import Participant, TrackSetting
from headwater_gateway.room.roster import SERVER_PREFIX
from headwater_gateway.room.state import RoomState

MAX_METADATA_BYTES: Final = 64_000
MAX_NAME_BYTES: Final = 256


def handle_request(room: RoomState, sid: ParticipantSid, request: rtc.SignalRequest, now: float) -> None:
    """Carry out one request of a client. Unknown ones are ignored: newer clients say more than we know."""
    participant = room.participants.get(sid)
    if participant is None or participant.moving_at is not None:
        return
    match request.WhichOneof("message"):
        case "add_track":
            tracks.add_track(room, participant, request.add_track, now)
        case "mute":
            tracks.mute(room, participant, request.mute, now)
        case "subscription":
            subscriptions.choose(room, participant, request.subscription)
        case "track_setting":
            subscriptions.set_tracks(room, participant, request.track_setting)
        case "subscription_permission":
            subscriptions.set_audience(room, participant, request.subscription_permission)
        case "update_metadata":
            update_metadata(room, participant, request.update_metadata, now)
        case "update_audio_track":
            _update_audio(room, participant, request.update_audio_track, now)
        case "update_layers":
            _update_layers(room, participant, request.update_layers, now)
        case "sync_state":
            _sync_state(room, participant, request.sync_state, now)
        case _:
            pass


def update_metadata(
    room: RoomState, participant: Participant, request: rtc.UpdateParticipantMetadata, now: float
) -> None:
    """`update_metadata`: name, metadata and attributes of oneself, if the grant allows."""
    refusal = _metadata_refusal(participant, request)
    reason, message = refusal or (rtc.RequestResponse.OK, "")
    if refusal is None:
        participant.name = request.name or participant.name
        participant.metadata = request.metadata or participant.metadata
        for key, value in request.attributes.items():
            if value:
                participant.attributes[key] = value
            else:
                participant.attributes.pop(key, None)
        room.announce(participant, now, at_once=True)
    if request.request_id or refusal is not None:
        response = rtc.RequestResponse(
            request_id=request.request_id, reason=reason, message=message, update_metadata=request
        )
        room.tell(participant.sid, rtc.SignalResponse(request_response=response))


def _metadata_refusal(
    participant: Participant, request: rtc.UpdateParticipantMetadata
) -> "tuple[rtc.RequestResponse.Reason, str] | None":
    reasons = rtc.RequestResponse
    if not participant.permission.can_update_metadata:
        return reasons.NOT_ALLOWED, "the token lacks the grant canUpdateOwnMetadata"
    for key, value in request.attributes.items():
        if key.startswith(SERVER_PREFIX) and participant.attributes.get(key, "") != value:
            return reasons.NOT_ALLOWED, f"attributes that start with {SERVER_PREFIX!r} are set by the server"
    if len(request.name.encode()) > MAX_NAME_BYTES:
        return reasons.LIMIT_EXCEEDED, f"name is longer than {MAX_NAME_BYTES} bytes"
    if len(request.metadata.encode()) > MAX_METADATA_BYTES:
        return reasons.LIMIT_EXCEEDED, f"metadata is longer than {MAX_METADATA_BYTES} bytes"
    merged = {**participant.attributes, **request.attributes}
    if sum(len(k.encode()) + len(v.encode()) for k, v in merged.items()) > MAX_METADATA_BYTES:
        return reasons.LIMIT_EXCEEDED, f"attributes are longer than {MAX_METADATA_BYTES} bytes together"
    return None


def _update_audio(
    room: RoomState, participant: Participant, request: rtc.UpdateLocalAudioTrack, now: float
) -> None:
    track = participant.tracks.get(TrackSid(request.track_sid))
    if track is not None:
        del track.info.audio_features[:]
        track.info.audio_features.extend(request.features[:16])
        room.announce(participant, now)


def _update_layers(
    room: RoomState, participant: Participant, request: rtc.UpdateVideoLayers, now: float
) -> None:
    track = participant.tracks.get(TrackSid(request.track_sid))
    if track is not None and 0 < len(request.layers) <= tracks.MAX_LAYERS:
        del track.info.layers[:]
        track.info.layers.extend(request.layers)
        room.announce(participant, now)
        subscriptions.sync_tracks(room, [track.sid])


def _sync_state(room: RoomState, participant: Participant, request: rtc.SyncState, now: float) -> None:
    """After a resume the client says what it has published and chosen; the room knows the rest."""
    for published in request.publish_tracks[: tracks.MAX_TRACKS]:
        tracks.republish(room, participant, published, now)
    choice = request.subscription
    named = [*choice.track_sids, *(t for group in choice.participant_tracks for t in group.track_sids)]
    if named:
        subscriptions.choose(room, participant, choice)
    disabled = [TrackSid(sid) for sid in request.track_sids_disabled if sid in room.tracks]
    for sid in disabled:
        participant.settings[sid] = TrackSetting(disabled=True)
    subscriptions.sync_subscriber(room, participant, disabled)


def kind_of(kind: str) -> models.ParticipantInfo.Kind:
    """The protocol's participant kind of a token's `kind` claim."""
    kinds = models.ParticipantInfo
    names = {"ingress": kinds.INGRESS, "egress": kinds.EGRESS, "sip": kinds.SIP, "agent": kinds.AGENT}
    return names.get(kind.lower(), kinds.STANDARD)
