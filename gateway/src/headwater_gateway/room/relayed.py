"""Participants whose media comes over a TURN server: who they are, and sending them another way."""

from headwater_api.ids import ParticipantSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.room.model import Participant
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.wire import leave


def note_path(participant: Participant, event: node_pb2.TransportEvent) -> None:
    """Remember where the client's packets come from; a TURN server's address where they are relayed."""
    if event.state == node_pb2.TRANSPORT_CONNECTED and event.remote_address:
        participant.paths[event.transport_id] = _host(event.remote_address)
    elif event.state in (node_pb2.TRANSPORT_FAILED, node_pb2.TRANSPORT_CLOSED):
        participant.paths.pop(event.transport_id, None)


def restart_over(room: RoomState, address: str) -> list[ParticipantSid]:
    """Ask those who are relayed by the server at `address` to restart ICE with a fresh list of servers.

    They resume: their participant, tracks and subscriptions stay. Their sids.
    """
    here = [p.sid for p in room.participants.values() if p.moving_at is None and address in p.paths.values()]
    message = leave(models.DisconnectReason.UNKNOWN_REASON, rtc.LeaveRequest.RESUME)
    for sid in here:
        room.tell(sid, rtc.SignalResponse(leave=message))
    return here


def _host(address: str) -> str:
    """The address of "ip:port" or "[ip6]:port"."""
    return address.rpartition(":")[0].strip("[]")
