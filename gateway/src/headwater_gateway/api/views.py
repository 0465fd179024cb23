"""Meetings, rooms and participants as REST shows them. Pure."""

from headwater_api.meeting import ACTIVE, ENDED, Meeting
from livekit.protocol import models

from headwater_gateway.api import schemas
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.model import Participant


def meeting_view(meeting: Meeting) -> schemas.MeetingView:
    """From the object; what is true of it now the operator has written there."""
    held = {c.type for c in meeting.status.conditions if c.status == "True"}
    schedule = meeting.spec.schedule
    waits = schedule is not None and ACTIVE not in held
    duration = schedule.duration if schedule is not None else None
    return schemas.MeetingView(
        meeting_id=meeting.metadata.name,
        title=meeting.spec.title,
        status="ended" if ENDED in held else "scheduled" if waits else "active",
        scheduled_time=schedule.start if schedule is not None else None,
        duration=int(duration.total_seconds() // 60) if duration is not None else None,
        participants=meeting.status.participants,
        cluster=meeting.spec.cluster_ref.name,
    )


def participant_view(participant: Participant) -> schemas.ParticipantView:
    """One row; what is muted is off."""
    on = {track.info.source for track in participant.tracks.values() if not track.info.muted}
    return schemas.ParticipantView(
        participant_id=participant.identity,
        name=participant.name,
        role=str(participant.role),
        audio_enabled=models.TrackSource.MICROPHONE in on,
        video_enabled=models.TrackSource.CAMERA in on,
        screen_sharing=models.TrackSource.SCREEN_SHARE in on,
    )


def participant_node(participant: Participant) -> schemas.ParticipantNode:
    """Its node, or the one that it is on its way to."""
    return schemas.ParticipantNode(
        participant_id=participant.identity,
        node_id=participant.node_id,
        region=participant.region,
        moving=participant.migration is not None or participant.moving_at is not None,
    )


def meeting_state(meeting_id: str, title: str, actor: RoomActor | None) -> schemas.MeetingStateView:
    """For somebody who is let in."""
    state = actor.state if actor is not None and not actor.state.ended else None
    if state is None:
        return schemas.MeetingStateView(
            meeting_id=meeting_id, title=title, locked=False, recording=False, participants=[]
        )
    locked = state.config.locked if state.access.locked is None else state.access.locked
    return schemas.MeetingStateView(
        meeting_id=meeting_id,
        title=title,
        locked=locked,
        recording=state.access.is_recorded,
        participants=[participant_view(p) for p in state.visible()],
    )
