"""What a room remembers of its participants' transports, read off the commands that pass through it."""

from collections.abc import Iterable
from dataclasses import replace

from headwater_api.ids import ParticipantSid, TransportId
from headwater_api.nodev1 import node_pb2

from headwater_gateway.room.model import Participant, TransportMemo
from headwater_gateway.room.state import RoomState


def note_commands(participant: Participant, commands: Iterable[node_pb2.Command]) -> None:
    """Keep ICE credentials and the client's end of each transport."""
    for command in commands:
        match command.WhichOneof("command"):
            case "create_transport":
                created = command.create_transport
                _change(
                    participant,
                    created.transport_id,
                    ufrag=created.local_ufrag,
                    pwd=created.local_pwd,
                    remote_fingerprint=created.remote_fingerprint,
                )
            case "restart_ice":
                restart = command.restart_ice
                _change(participant, restart.transport_id, ufrag=restart.local_ufrag, pwd=restart.local_pwd)
            case "set_remote":
                remote = command.set_remote
                _change(
                    participant,
                    remote.transport_id,
                    remote_fingerprint=remote.remote_fingerprint,
                    remote_ufrag=remote.remote_ufrag,
                )
            case _:
                pass


def pass_on(
    state: RoomState, sid: ParticipantSid, commands: tuple[node_pb2.Command, ...]
) -> Participant | None:
    """Commands for a participant's own transports, to its node. None: it is not on one now."""
    participant = state.participants.get(sid)
    if participant is None or participant.moving_at is not None:
        return None
    if commands:
        note_commands(participant, commands)
        state.command(participant.node_id, commands)
    return participant


def _change(participant: Participant, transport_id: str, **changes: str) -> None:
    key = TransportId(transport_id)
    participant.transports[key] = replace(participant.transports.get(key, TransportMemo()), **changes)
