"""Participants of other rooms that are shown here: they come, are kept as their own room has them, and go."""

from typing import Final

from headwater_api.ids import ParticipantSid, TrackSid
from headwater_api.reasons import Reason
from headwater_api.wellknown import ATTRIBUTE_SOURCE
from livekit.protocol import models

from headwater_gateway.room import crossings, roster, tracks
from headwater_gateway.room.crossing import Ask, Forwarded, SeenTrack, Sight, Start
from headwater_gateway.room.links import sync_cascade
from headwater_gateway.room.model import JoinRequest, Participant, PublishedTrack
from headwater_gateway.room.mover import Mover
from headwater_gateway.room.ports import RoomError
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import sync_tracks

# Nothing heard of its own room for so long: that has no gateway, and the participant is taken off.
UNHEARD_S: Final = 60.0


def begin(room: RoomState, mover: Mover, start: Start, now: float) -> Participant:
    """Show it from now on. JoinRefusal by the room's rules; RoomError: the identity is taken.

    Nothing happens where it is shown already.
    """
    sight = start.sight
    known = room.of_identity(sight.identity)
    if known is not None:
        if known.forwarded is not None and known.forwarded.source == start.source:
            return known
        raise RoomError(
            Reason.PARTICIPANT_NOT_MOVABLE, "the destination room has a participant of that identity"
        )
    permission = models.ParticipantPermission()
    permission.CopyFrom(sight.permission)
    permission.can_subscribe = permission.can_publish_data = permission.can_update_metadata = False
    permission.can_publish = True  # its own room says what it may publish, and may change its mind
    del permission.can_publish_sources[:]
    request = JoinRequest(
        sight.identity,
        name=sight.name,
        metadata=sight.metadata,
        attributes=sight.attributes,
        permission=permission,
        kind=sight.kind,
        region=sight.region,
        auto_subscribe=False,
    )
    participant = mover.admit(request, now).participant
    participant.forwarded = Forwarded(start.source, now)
    participant.permission.can_subscribe = False
    participant.attributes[ATTRIBUTE_SOURCE] = start.source
    participant.state = models.ParticipantInfo.ACTIVE
    room.announce(participant, now)
    room.happened("participant_joined", participant)
    apply(room, mover, participant.sid, sight, now)
    return participant


def ask_of(room: RoomState, sid: ParticipantSid, seen: str) -> Ask | None:
    """The next question to its own room. None: it is not shown here any more."""
    participant = room.participants.get(sid)
    if participant is None or participant.forwarded is None or room.ended:
        return None
    layers: dict[TrackSid, int] = {}
    for track in participant.tracks:
        for other in room.participants.values():
            wanted = other.wanted.get(track)
            if wanted is not None and not wanted.paused:
                layers[track] = max(layers.get(track, -1), wanted.max_spatial)
    forwarded = participant.forwarded
    return Ask(forwarded.source, participant.identity, sid, forwarded.crossing, layers, seen)


def apply(room: RoomState, mover: Mover, sid: ParticipantSid, sight: Sight, now: float) -> None:
    """Its own room has told what it is now. One that lost its node here gets another, where there is one."""
    participant = room.participants.get(sid)
    if participant is None or participant.forwarded is None:
        return
    participant.forwarded.heard_at = now
    if participant.moving_at is not None and (facts := mover.place_anew(participant, now)) is not None:
        crossings.rehome(room, participant, facts, now)
    changed = _set_row(participant, sight)
    fresh, gone = _set_tracks(room, participant, sight)
    if sight.node_id and participant.moving_at is None:
        crossings.link(room, participant, sight.node_id, sight.address, now)
    if changed or fresh or gone:
        room.announce(participant, now, at_once=True)
        sync_cascade(room)
        sync_tracks(room, (*fresh, *gone))


def _set_row(participant: Participant, sight: Sight) -> bool:
    own = {k: v for k, v in participant.attributes.items() if k.startswith(roster.SERVER_PREFIX)}
    attributes = {**sight.attributes, **own}
    row = (participant.name, participant.metadata, participant.attributes)
    participant.name, participant.metadata, participant.attributes = sight.name, sight.metadata, attributes
    return row != (sight.name, sight.metadata, attributes)


def _set_tracks(
    room: RoomState, participant: Participant, sight: Sight
) -> tuple[list[TrackSid], list[TrackSid]]:
    """The tracks that are new or otherwise than before, and those that are no more."""
    forwarded = participant.forwarded
    assert forwarded is not None
    seen = {track.sid: track for track in sight.tracks if _is_allowed(room, participant, track)}
    gone = [sid for sid in participant.tracks if sid not in seen]
    for sid in gone:
        tracks.drop(room, participant, participant.tracks[sid])
    changed, arrived, muted_here = [], list[PublishedTrack](), frozenset[TrackSid]()
    for sid, track in seen.items():
        known = participant.tracks.get(sid)
        if known is None and (len(participant.tracks) >= tracks.MAX_TRACKS or sid in room.tracks):
            continue
        # A host here may have silenced it, too: that holds whatever the other room says.
        is_ours = sid in forwarded.held or sid not in forwarded.silenced
        held = known is not None and known.is_silenced and is_ours
        muted_here |= {sid} if held else frozenset()
        info = models.TrackInfo()
        info.CopyFrom(track.info)
        info.muted = info.muted or held
        if known is None:
            known = PublishedTrack(
                sid, participant.sid, "", info, track.section, track.codec, is_settled=True
            )
            participant.tracks[sid] = room.tracks[sid] = known
            arrived.append(known)
        elif (known.info, known.section, known.codec) == (info, track.section, track.codec) and (
            known.is_silenced == (held or track.is_silenced)
        ):
            continue
        known.info, known.section, known.codec = info, track.section, track.codec
        known.is_silenced = held or track.is_silenced
        changed.append(sid)
    for known in arrived:
        room.happened("track_published", participant, known)
    forwarded.held = muted_here
    forwarded.silenced = frozenset(sid for sid, track in seen.items() if track.is_silenced)
    return changed, gone


def _is_allowed(room: RoomState, participant: Participant, track: SeenTrack) -> bool:
    allowed = participant.permission.can_publish_sources
    if not participant.permission.can_publish or (allowed and track.info.source not in allowed):
        return False
    return not (room.config.e2ee_required and track.info.encryption == models.Encryption.NONE)


def end(room: RoomState, sid: ParticipantSid, now: float) -> None:
    """It has left its own room."""
    roster.remove(room, sid, models.DisconnectReason.CLIENT_INITIATED, now)


def expire(room: RoomState, now: float) -> None:
    """Take those off whose own room is not heard of."""
    for participant in list(room.participants.values()):
        if participant.forwarded is not None and now - participant.forwarded.heard_at >= UNHEARD_S:
            roster.remove(room, participant.sid, models.DisconnectReason.STATE_MISMATCH, now)
