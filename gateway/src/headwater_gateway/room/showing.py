"""A participant's own room, towards other rooms that show it too: what is told of it, its end of the link."""

import hashlib
import json
from dataclasses import replace
from typing import Final

from headwater_api.reasons import Reason

from headwater_gateway.room import codec
from headwater_gateway.room.crossing import NO_NODE, Ask, SeenTrack, Showing, Sight
from headwater_gateway.room.model import Participant
from headwater_gateway.room.moderation import participant_of
from headwater_gateway.room.ports import RoomError
from headwater_gateway.room.roster import SERVER_PREFIX
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import sync_dynacast
from headwater_gateway.room.tracks import note_subscribed

# A room that shows somebody asks several times a second; one that does not any more need not have said so.
LAPSE_S: Final = 15.0


def look(room: RoomState, identity: str) -> Sight:
    """What another room is told. RoomError: it is not here, or only shown here itself."""
    participant = participant_of(room, identity)
    if participant.forwarded is not None:
        raise RoomError(Reason.PARTICIPANT_NOT_MOVABLE, "it is forwarded from another room itself: ask there")
    node_id = participant.uplink_node
    facts = room.nodes.get(node_id) if node_id is not None else None
    return Sight(
        participant.identity,
        participant.region,
        node_id=facts.node_id if facts is not None else NO_NODE,
        address=facts.media_addresses[0] if facts is not None else "",
        name=participant.name,
        metadata=participant.metadata,
        attributes={k: v for k, v in participant.attributes.items() if not k.startswith(SERVER_PREFIX)},
        permission=participant.permission,
        kind=participant.kind,
        tracks=_tracks(participant),
    )


def _tracks(participant: Participant) -> tuple[SeenTrack, ...]:
    if not participant.audience.everyone:
        return ()  # it lets only some of its own room subscribe, none of whom is in the other
    return tuple(
        SeenTrack(track.sid, track.info, track.section, track.codec, track.is_silenced)
        for track in participant.tracks.values()
        if track.section is not None and track.codec is not None
    )


def mark_of(sight: Sight) -> str:
    """The same for the same sight."""
    return hashlib.sha256(json.dumps(codec.pack(sight, 0.0), sort_keys=True).encode()).hexdigest()[:16]


def show(room: RoomState, ask: Ask, now: float) -> Sight:
    """Do as the other room asks, and tell what there is. RoomError, as `look`."""
    known = room.shown.get(ask.shown_as)
    if ask.is_over or room.of_identity(ask.identity) is None:
        forget(room, ask)
    sight = look(room, ask.identity)
    if ask.is_over:
        return sight
    if known is None:
        known = room.shown[ask.shown_as] = Showing(ask.identity, now)
    known.asked_at = now
    if known.crossing is not None and known.crossing != ask.crossing:
        room.command(known.crossing.far, [known.crossing.closed()])
        known.crossing = None
    if known.crossing is None and ask.crossing is not None and ask.crossing.far == sight.node_id:
        room.command(ask.crossing.far, [ask.crossing.far_end()])
        known.crossing = ask.crossing
    if known.layers != ask.layers:
        changed = known.layers.keys() | ask.layers.keys()
        known.layers = dict(ask.layers)
        note_subscribed(room, known.layers)
        sync_dynacast(room, changed)
    return replace(sight, is_linked=known.crossing is not None and known.crossing == ask.crossing)


def forget(room: RoomState, ask: Ask) -> None:
    """It is not shown there any more."""
    known = room.shown.pop(ask.shown_as, None)
    if known is None:
        return
    if known.crossing is not None:
        room.command(known.crossing.far, [known.crossing.closed()])
    sync_dynacast(room, known.layers)


def lapse(room: RoomState, now: float) -> None:
    """Forget rooms that do not ask any more."""
    for sid, known in list(room.shown.items()):
        if now - known.asked_at >= LAPSE_S:
            forget(room, Ask(room.room_id, known.identity, sid))
