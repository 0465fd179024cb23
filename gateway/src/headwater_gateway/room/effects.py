"""What a decision wants done. Carried out in order by the actor."""

from collections.abc import Callable
from dataclasses import dataclass

from headwater_api.ids import NodeId, ParticipantSid, TrackSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.nodes.facts import NodeFacts
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
class ChangeWanted:
    """Tracks that a subscriber is to get from now on, or otherwise than before, and those no more."""

    sid: ParticipantSid
    changed: tuple[WantedTrack, ...]
    dropped: tuple[TrackSid, ...]


@dataclass(frozen=True, slots=True)
class MoveSession:
    """Prepare transports on another node and lead the client there."""

    sid: ParticipantSid
    facts: NodeFacts
    why: str
    was_connected: bool  # it has received on the node before
    delay_s: float = 0.0  # before its client is told
    head_start_s: float = 0.0  # between the new addresses and the move itself


@dataclass(frozen=True, slots=True)
class EndSession:
    """Say `leave` (if given) and close the client's session."""

    sid: ParticipantSid
    leave: rtc.LeaveRequest | None
    why: str


@dataclass(frozen=True, slots=True)
class DropSession:
    """Close the client's session without a word: it resumes, at the gateway that has the room now."""

    sid: ParticipantSid
    why: str


@dataclass(frozen=True, slots=True)
class ReleaseNode:
    """The room uses this node no more. `dead`: it would not hear a farewell."""

    node_id: NodeId
    dead: bool = False


@dataclass(frozen=True, slots=True)
class RoomEnded:
    why: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that applications are told of, by the webhooks' names (`participant_joined`, …)."""

    event: str
    participant: models.ParticipantInfo | None = None
    track: models.TrackInfo | None = None


@dataclass(frozen=True, slots=True)
class RpcAnswered:
    """A client has answered a call that was made through the API."""

    answer: models.DataPacket


@dataclass(frozen=True, slots=True)
class ChatSaid:
    """A chat message or a reaction. No recipients: everybody. `sent_ms`: Unix, 0: not stamped yet."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    kind: str
    message: str
    sent_ms: int


# A room's row as it is now, made for those who need it.
Row = Callable[[], models.Room]
# For one participant's session.
ToSession = ChangeWanted | MoveSession | EndSession | DropSession
ToApplication = Happened | RpcAnswered | ChatSaid
Effect = ToClients | ToNode | ToSession | ReleaseNode | RoomEnded | ToApplication
