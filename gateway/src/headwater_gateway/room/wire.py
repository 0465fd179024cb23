"""Room state as the LiveKit protocol's messages."""

from livekit.protocol import models, rtc

from headwater_gateway.room.model import Participant, RoomConfig


def participant_info(participant: Participant) -> models.ParticipantInfo:
    """The full row, as every update carries it."""
    return models.ParticipantInfo(
        sid=participant.sid,
        identity=participant.identity,
        name=participant.name,
        state=participant.state,
        metadata=participant.metadata,
        attributes=participant.attributes,
        joined_at=participant.joined_at_ms // 1000,
        joined_at_ms=participant.joined_at_ms,
        version=participant.version,
        permission=participant.permission,
        region=participant.region,
        is_publisher=bool(participant.tracks),
        kind=participant.kind,
        disconnect_reason=participant.disconnect_reason,
        client_protocol=participant.client_protocol,
        tracks=[t.info for t in participant.tracks.values() if t.is_live],
    )


def room_info(
    sid: str,
    name: str,
    config: RoomConfig,
    created_ms: int,
    *,
    participants: int,
    publishers: int,
    is_recorded: bool = False,
) -> models.Room:
    """The room's own row. `created_ms` is Unix time."""
    return models.Room(
        sid=sid,
        name=name,
        empty_timeout=config.empty_timeout_s,
        departure_timeout=config.departure_timeout_s,
        max_participants=config.max_participants,
        creation_time=created_ms // 1000,
        creation_time_ms=created_ms,
        metadata=config.metadata,
        num_participants=participants,
        num_publishers=publishers,
        active_recording=is_recorded,
        enabled_codecs=[models.Codec(mime=mime) for mime in PUBLISH_CODECS],
    )


PUBLISH_CODECS = ("audio/opus", "audio/red", "video/VP8", "video/H264", "video/VP9", "video/AV1")


def leave(reason: models.DisconnectReason, action: rtc.LeaveRequest.Action) -> rtc.LeaveRequest:
    """`leave` for clients old (can_reconnect) and new (action)."""
    return rtc.LeaveRequest(
        reason=reason,
        action=action,
        can_reconnect=action != rtc.LeaveRequest.DISCONNECT,
    )
