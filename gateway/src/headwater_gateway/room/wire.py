"""Room state as the LiveKit protocol's messages."""

from livekit.protocol import models, rtc

from headwater_gateway.room.model import Participant, RoomConfig


def participant_info(participant: Participant) -> models.ParticipantInfo:
    """The full row, as every update carries it. What seldom changes is copied from the row before."""
    row = models.ParticipantInfo()
    row.CopyFrom(_lasting(participant))
    row.state, row.version = participant.state, participant.version
    row.is_publisher, row.disconnect_reason = bool(participant.tracks), participant.disconnect_reason
    row.tracks.extend([t.info for t in participant.tracks.values() if t.is_live])
    return row


def _lasting(participant: Participant) -> models.ParticipantInfo:
    attributes, permission = participant.attributes, participant.permission
    known = participant.row
    is_fresh = (
        known is not None
        and known[0] == (participant.name, participant.metadata, participant.region, attributes)
        and known[1].permission == permission
    )
    if known is None or not is_fresh:
        made = models.ParticipantInfo(
            sid=participant.sid,
            identity=participant.identity,
            name=participant.name,
            metadata=participant.metadata,
            attributes=attributes,
            joined_at=participant.joined_at_ms // 1000,
            joined_at_ms=participant.joined_at_ms,
            permission=permission,
            region=participant.region,
            kind=participant.kind,
            client_protocol=participant.client_protocol,
        )
        key = (participant.name, participant.metadata, participant.region, dict(attributes))
        known = participant.row = key, made
    return known[1]


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
        enabled_codecs=ENABLED_CODECS,
    )


PUBLISH_CODECS = ("audio/opus", "audio/red", "video/VP8", "video/H264", "video/VP9", "video/AV1")
ENABLED_CODECS = tuple(models.Codec(mime=mime) for mime in PUBLISH_CODECS)  # copied where they are used


def leave(reason: models.DisconnectReason, action: rtc.LeaveRequest.Action) -> rtc.LeaveRequest:
    """`leave` for clients old (can_reconnect) and new (action)."""
    return rtc.LeaveRequest(
        reason=reason,
        action=action,
        can_reconnect=action != rtc.LeaveRequest.DISCONNECT,
    )
