"""Taking a participant to another node without a new join: the client resumes and meets new transports.

The new node's transports are made first. The client is told to resume; its ICE restart meets new credentials
and a new DTLS fingerprint, so that both its peer connections go on at the new node. Until each of them is
connected there, the old node, if it lives, goes on forwarding: what the client publishes changes its origin
with the publisher connection, what it receives with the subscriber connection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headwater_api.ids import NodeId, ParticipantSid
from headwater_api.nodev1 import node_pb2
from headwater_api.wellknown import ATTRIBUTE_NODE, ATTRIBUTE_REGION
from livekit.protocol import models

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import tracks
from headwater_gateway.room.effects import MoveSession
from headwater_gateway.room.links import sync_cascade
from headwater_gateway.room.model import Migration, Participant, publisher_transport, subscriber_transport
from headwater_gateway.room.state import RoomState

Find = Callable[[Participant], "Lead | None"]

# For the client to come back on a new WebSocket, and then for its connections, seconds.
RETURN_S: Final = 6.0
CONNECT_S: Final = 6.0
# libwebrtc looks for candidates to check every 250 ms while its connection is well, and every 48 ms once it
# has one that it has not checked. It must have looked once before the move.
HEAD_START_S: Final = 0.25


def nowhere(_: Participant) -> "Lead | None":
    """A Find that leaves it to a new join."""
    return None


def can_migrate(participant: Participant) -> bool:
    """Whether its client can be led to another node: it is in, not on its way, and knows how to resume."""
    is_free = participant.moving_at is None and participant.migration is None
    is_led = participant.resumes and not participant.is_awaited
    return is_free and is_led and _layers_are_known(participant)


def _layers_are_known(participant: Participant) -> bool:
    """Whether a new node could tell published layers apart: clients name them in the first packets only."""
    return all(
        len(section.layers) <= 1
        or all(layer.ssrc for layer in section.layers)
        or any(layer.ssrc for layer in participant.sources.get(section.mid, ()))
        for section in participant.sections
    )


@dataclass(frozen=True, slots=True)
class Lead:
    """Where a participant is led, and after how many seconds its client is told: a crowd comes spread out."""

    facts: NodeFacts
    delay_s: float = 0.0


def start(room: RoomState, participant: Participant, lead: Lead, why: str, now: float) -> None:
    """Begin: the node joins the room, the session prepares transports there and tells the client."""
    facts = lead.facts
    source = participant.node_id if participant.node_id in room.nodes else None
    was_connected = participant.state == models.ParticipantInfo.ACTIVE
    participant.migration = Migration(source, now + lead.delay_s, why)
    participant.node_id, participant.region = facts.node_id, facts.region
    participant.attributes |= {ATTRIBUTE_NODE: facts.node_id, ATTRIBUTE_REGION: facts.region}
    room.nodes[facts.node_id] = facts
    room.moved += 1
    sync_cascade(room)
    head_start_s = HEAD_START_S if source is not None else 0.0  # a dead node forwards nothing meanwhile
    room.effects.append(MoveSession(participant.sid, facts, why, was_connected, lead.delay_s, head_start_s))
    room.announce(participant, now)


def prepare(room: RoomState, sid: ParticipantSid, commands: tuple[node_pb2.Command, ...]) -> None:
    """The session's transports for the new node. Tracks stay with the old one until the client is there."""
    participant = room.participants.get(sid)
    if participant is None or participant.moving_at is not None:
        return
    room.command(participant.node_id, commands)
    if participant.sections:
        tracks.configure(room, participant)


def client_is_back(participant: Participant, now: float) -> None:
    """It has resumed: from now on its connections are waited for."""
    if participant.migration is not None and participant.migration.back_at is None:
        participant.migration.back_at = now


def connected(room: RoomState, participant: Participant, transport_id: str) -> str:
    """A transport is up on the new node: the old one's counterpart goes. A remark for the log."""
    migration = participant.migration
    if migration is None:
        return ""
    if transport_id == publisher_transport(participant.sid):
        if migration.uplink_up:
            return ""
        migration.uplink_up = True
        close_on(room, migration.source, publisher_transport(participant.sid))
        # First the track leaves the links, then it is born here: a node takes it from one side only.
        sync_cascade(room)
        tracks.configure(room, participant)
    else:
        migration.downlink_up = True
        close_on(room, migration.source, subscriber_transport(participant.sid))
    if not migration.downlink_up or (participant.has_uplink and not migration.uplink_up):
        return ""
    close_on(room, migration.source, publisher_transport(participant.sid))
    participant.migration = None
    sync_cascade(room)
    return f"{participant.sid} has moved to {participant.node_id}"


def close_on(room: RoomState, node_id: NodeId | None, *transports: str) -> None:
    """Close transports at a node that may be gone."""
    if node_id is not None:
        for transport in transports:
            command = node_pb2.CloseTransport(transport_id=transport)
            room.command(node_id, [node_pb2.Command(close_transport=command)])


def overdue(participant: Participant, now: float) -> str:
    """Why a migration counts as failed; empty while it does not."""
    migration = participant.migration
    if migration is None:
        return ""
    if migration.back_at is None:
        return "its client did not resume" if now - migration.since >= RETURN_S else ""
    return "its client did not connect to the new node" if now - migration.back_at >= CONNECT_S else ""
