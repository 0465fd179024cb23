"""Chat and reactions inside a room: as chat messages and user packets on the data channels."""

from typing import Final

from headwater_api.reasons import Reason
from livekit.protocol import models

from headwater_gateway.room.data import send_packet
from headwater_gateway.room.effects import ChatSaid
from headwater_gateway.room.moderation import participant_of
from headwater_gateway.room.ports import RoomError
from headwater_gateway.room.state import RoomState

REACTION_TOPIC: Final = "headwater.reaction"


def say(state: RoomState, said: ChatSaid, now: float) -> None:
    """Send a participant's message to all others, or to those named. RoomError."""
    sender = participant_of(state, said.sender)
    if not sender.permission.can_publish_data:
        raise RoomError(Reason.PUBLISH_NOT_ALLOWED, "this participant may not send messages")
    if not state.chat_rate.take(sender.identity, now):
        raise RoomError(Reason.RATE_LIMITED, "too many messages: wait a moment")
    targets = [participant_of(state, identity) for identity in said.recipients]
    if not said.recipients:
        targets = [p for p in state.participants.values() if p.sid != sender.sid]
    packet = models.DataPacket(
        participant_identity=sender.identity,
        participant_sid=sender.sid,
        destination_identities=said.recipients,
    )
    if said.kind == "reaction":
        packet.user.payload, packet.user.topic = said.message.encode(), REACTION_TOPIC
        packet.user.participant_identity, packet.user.participant_sid = sender.identity, sender.sid
    else:
        packet.chat_message.id, packet.chat_message.timestamp = said.message_id, said.sent_ms
        packet.chat_message.message = said.message
    send_packet(state, [p for p in targets if p.moving_at is None], packet)
