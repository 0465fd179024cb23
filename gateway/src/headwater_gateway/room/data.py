"""Data packets: the room writes who sent them and decides who gets them."""

from typing import Final

from google.protobuf.message import DecodeError
from headwater_api.ids import NodeId, TransportId
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models

from headwater_gateway.room.effects import ChatSaid, RpcAnswered
from headwater_gateway.room.model import Participant, subscriber_transport, transport_owner
from headwater_gateway.room.state import RoomState

LABELS: Final = ("_reliable", "_lossy")
MAX_PACKET_BYTES: Final = 64_000
MAX_KEPT_RECIPIENTS: Final = 50
MAX_KEPT_CHARACTERS: Final = 4000
# Whom clients answer when the API has called them. No token may bear it.
SERVER_IDENTITY: Final = "headwater.server"


def route_data(room: RoomState, event: node_pb2.DataEvent, now: float) -> str:
    """Forward one packet. Returns why it was dropped, or an empty string."""
    sender = room.participants.get(transport_owner(event.transport_id))
    refusal = "the sender is not in the room" if sender is None else _refusal(sender, event)
    if sender is None or refusal:
        return refusal
    try:
        packet = models.DataPacket.FromString(event.payload)
    except DecodeError:
        return "not a DataPacket"
    # The last owner may not have passed on all that it had taken up: its snapshot can be ahead of its calls.
    # So whatever has a number, by which its receivers know what they have, goes out again.
    if event.replayed and packet.sequence <= sender.own_data_sequence:
        return ""
    kind = packet.WhichOneof("value")
    # What is replayed was in time when it came, and comes all at once now.
    if not event.replayed and not _is_in_time(room, sender, kind, now):
        return "too many packets of one sender"
    if SERVER_IDENTITY in packet.destination_identities:
        _stamp(sender, packet, reliable=event.label == LABELS[0])
        if kind in ("rpc_ack", "rpc_response"):
            room.effects.append(RpcAnswered(packet))
        return ""
    targets = _targets(room, sender, packet)
    _stamp(sender, packet, reliable=event.label == LABELS[0])
    send_packet(room, targets, packet, event.label)
    if kind == "chat_message":
        room.effects.append(_said(sender, packet))
    return ""


def _is_in_time(room: RoomState, sender: Participant, kind: str | None, now: float) -> bool:
    if kind == "chat_message" and not room.chat_rate.take(sender.identity, now):
        return False
    return room.data_rate.take(sender.identity, now)


def _said(sender: Participant, packet: models.DataPacket) -> ChatSaid:
    said = packet.chat_message
    return ChatSaid(
        # Unique among all senders, whatever a client writes.
        message_id=f"{sender.sid}/{said.id[:64]}",
        sender=sender.identity,
        recipients=tuple(packet.destination_identities[:MAX_KEPT_RECIPIENTS]),
        kind="message",
        message=said.message[:MAX_KEPT_CHARACTERS],
        sent_ms=0,  # not the client's word for it: what keeps it stamps it
    )


def _refusal(sender: Participant, event: node_pb2.DataEvent) -> str:
    if sender.moving_at is not None:
        return "the sender is on its way to another node"
    if event.label not in LABELS:
        return "unknown label"
    if not sender.permission.can_publish_data:
        return "the sender may not publish data"
    if len(event.payload) > MAX_PACKET_BYTES:
        return f"larger than {MAX_PACKET_BYTES} bytes"
    return ""


def send_packet(
    room: RoomState, targets: list[Participant], packet: models.DataPacket, label: str = LABELS[0]
) -> None:
    """Hand the packet to the nodes of those participants, serialised once."""
    payload = packet.SerializeToString()
    by_node: dict[NodeId, list[TransportId]] = {}
    for target in targets:
        if target.forwarded is not None:
            continue  # it has no client here
        by_node.setdefault(target.node_id, []).append(subscriber_transport(target.sid))
    for node_id, transports in by_node.items():
        command = node_pb2.SendData(transport_ids=transports, label=label, payload=payload, binary=True)
        room.command(node_id, [node_pb2.Command(send_data=command)])


def _targets(room: RoomState, sender: Participant, packet: models.DataPacket) -> list[Participant]:
    identities = set(packet.destination_identities)
    sids: set[str] = set()
    if packet.WhichOneof("value") == "user":
        identities |= set(packet.user.destination_identities)
        sids = set(packet.user.destination_sids)
    everyone = not identities and not sids
    return [
        p
        for p in room.participants.values()
        if p.sid != sender.sid
        and p.moving_at is None
        and (everyone or p.identity in identities or p.sid in sids)
    ]


def _stamp(sender: Participant, packet: models.DataPacket, *, reliable: bool) -> None:
    """Names come from the session, whatever was written. The sequence stays: by it repeats are dropped."""
    packet.participant_sid = "" if sender.is_hidden else sender.sid
    packet.participant_identity = "" if sender.is_hidden else sender.identity
    if packet.WhichOneof("value") == "user":
        packet.user.participant_sid = packet.participant_sid
        packet.user.participant_identity = packet.participant_identity
    if packet.WhichOneof("value") == "speaker":
        packet.ClearField("speaker")
    if reliable and packet.sequence:
        sender.own_data_sequence = max(sender.own_data_sequence, packet.sequence)
        sender.data_sequence = max(sender.data_sequence, packet.sequence)
