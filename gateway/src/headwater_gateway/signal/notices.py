"""What a room tells a session, in the order in which the session works it off."""

from dataclasses import dataclass

from headwater_api.ids import TrackSid
from livekit.protocol import rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.model import WantedTrack


@dataclass(frozen=True, slots=True)
class Message:
    """For the client; serialised once for all that get it."""

    message: rtc.SignalResponse
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the subscriber transport is to carry from now on, or otherwise, and what no more."""

    changed: tuple[WantedTrack, ...]
    dropped: tuple[TrackSid, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """The participant goes to another node."""

    facts: NodeFacts
    why: str
    was_connected: bool
    delay_s: float
    head_start_s: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Close without a word: the client resumes elsewhere."""

    why: str


@dataclass(frozen=True, slots=True)
class End:
    """Say `leave`, if given, and close."""

    leave: rtc.LeaveRequest | None
    why: str


Notice = Message | Wanted | Move | Drop | End
