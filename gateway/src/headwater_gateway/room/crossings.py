"""The near ends of links from other rooms, by which forwarded participants' tracks come."""

from collections.abc import Iterator

from headwater_api.ids import LinkId, NodeId
from headwater_api.wellknown import ATTRIBUTE_NODE, ATTRIBUTE_REGION

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.crossing import Crossing, Forwarded
from headwater_gateway.room.links import KEY_BYTES, REOPEN_AFTER_S, sync_cascade
from headwater_gateway.room.model import Participant
from headwater_gateway.room.state import RoomState


def link(room: RoomState, participant: Participant, far: NodeId, far_address: str, now: float) -> None:
    """See to it that the tracks come from that node of its own room: a link as it is, or a new one."""
    forwarded, near = participant.forwarded, room.nodes.get(participant.node_id)
    if forwarded is None or near is None:
        return
    old, near_address = forwarded.crossing, near.media_addresses[0]
    ends = (near.node_id, far, near_address, far_address)
    if old is not None and (old.near, old.far, old.near_address, old.far_address) == ends:
        return
    fresh = Crossing(
        LinkId(room.ids.sid("LK_")),
        *ends,
        near_key=room.ids.secret(KEY_BYTES),
        far_key=room.ids.secret(KEY_BYTES),
        near_token=room.ids.number(),
        far_token=room.ids.number(),
    )
    room.command(near.node_id, [fresh.near_end()])
    # Until a node says that it is up: an end that is refused is not tried again before a new link is made.
    forwarded.crossing, forwarded.broken_since = fresh, now
    sync_cascade(room)  # tracks go over before the old link takes its own with it
    if old is not None:
        room.command(old.near, [old.closed()])


def cut(room: RoomState, participant: Participant) -> None:
    """Close the near end; nothing if there is none."""
    forwarded = participant.forwarded
    if forwarded is not None and forwarded.crossing is not None:
        room.command(forwarded.crossing.near, [forwarded.crossing.closed()])
        forwarded.crossing = None


def rehome(room: RoomState, participant: Participant, facts: NodeFacts | None, now: float) -> None:
    """It enters at another node from now on. None: at none, until there is one."""
    cut(room, participant)
    if facts is None:
        participant.moving_at = now if participant.moving_at is None else participant.moving_at
    else:
        participant.moving_at = None
        participant.node_id, participant.region = facts.node_id, facts.region
        participant.attributes |= {ATTRIBUTE_NODE: facts.node_id, ATTRIBUTE_REGION: facts.region}
        room.nodes[facts.node_id] = facts
        room.moved += 1
    sync_cascade(room)
    room.announce(participant, now)


def mark(room: RoomState, link_id: LinkId, now: float, *, is_up: bool) -> None:
    """Remember what a node said of its end."""
    for forwarded in _crossed(room):
        if forwarded.crossing is not None and forwarded.crossing.link_id == link_id:
            since = now if forwarded.broken_since is None else forwarded.broken_since
            forwarded.broken_since = None if is_up else since


def mend(room: RoomState, now: float) -> None:
    """Give up links that are not up for long: the next news from the other room makes new ones."""
    for participant in room.participants.values():
        since = participant.forwarded.broken_since if participant.forwarded is not None else None
        if participant.forwarded is not None and since is not None and now - since >= REOPEN_AFTER_S:
            cut(room, participant)
            participant.forwarded.broken_since = None


def _crossed(room: RoomState) -> Iterator[Forwarded]:
    return (p.forwarded for p in room.participants.values() if p.forwarded is not None)
