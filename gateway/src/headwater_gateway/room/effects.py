"""What a decision wants done. Carried out in order by the actor."""

from dataclasses import dataclass

from headwater_api.ids import NodeId, ParticipantSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import rtc

from headwater_gateway.room.model import WantedTrack


@dataclass(frozen=True, slots=True)
class ToClients:
    """One message for several clients, serialised once."""

    sids: tuple[ParticipantSid, ...]
    message: rtc.SignalResponse


@dataclass(frozen=True, slots=True)
class ToNode:
    node_id: NodeId
    commands: tuple[node_pb2.Command, ...]


@dataclass(frozen=True, slots=True)
class SetWanted:
    """The whole set of tracks that a subscriber is to get."""

    sid: ParticipantSid
    tracks: tuple[WantedTrack, ...]


@dataclass(frozen=True, slots=True)
class EndSession:
    """Say `leave` (if given) and close the client's session."""

    sid: ParticipantSid
    leave: rtc.LeaveRequest | None
    why: str


@dataclass(frozen=True, slots=True)
class ReleaseNode:
    """The room uses this node no more. `dead`: it would not hear a farewell."""

    node_id: NodeId
    dead: bool = False


@dataclass(frozen=True, slots=True)
class RoomEnded:
    why: str


Effect = ToClients | ToNode | SetWanted | EndSession | ReleaseNode | RoomEnded
