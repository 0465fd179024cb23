"""What a room expects of its clients' sessions, and how it refuses a join."""

from dataclasses import dataclass
from typing import Final, Protocol

from headwater_api.ids import ParticipantSid, TrackSid
from headwater_api.reasons import Reason
from livekit.protocol import rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.model import WantedTrack

HANDED_OVER: Final = "another gateway has the room, or is about to: connect again"


class ClientPort(Protocol):
    """A client's session as its room sees it. No call blocks or raises."""

    def deliver(self, message: rtc.SignalResponse, encoded: bytes) -> None:
        """A message for the client; dropped while its WebSocket is away (a resume tells the whole state)."""

    def change_wanted(self, changed: tuple[WantedTrack, ...], dropped: tuple[TrackSid, ...]) -> None:
        """Tracks that the subscriber transport is to carry from now on or otherwise, and those no more."""

    def move(
        self, facts: NodeFacts, why: str, *, was_connected: bool, delay_s: float, head_start_s: float
    ) -> None:
        """Prepare transports on that node and lead the client there.

        `was_connected`: the client has received on the node before, and so has its data channels.
        `delay_s`: the client itself is told to resume so much later. `head_start_s`: it gets the node's
        addresses at once, and goes there so much later.
        """

    def end(self, leave: rtc.LeaveRequest | None, why: str) -> None:
        """Say `leave` and close. The participant is, or will be, off the roster."""

    def drop(self, why: str) -> None:
        """Close without a word: the client resumes elsewhere, and its media flows on."""


class JoinRefusal(Exception):
    """A join that the room's policy or the fleet does not allow. The sentence is fit for the client."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


class RoomError(Exception):
    """A command of the API that the room does not carry out. The sentence is fit for the caller."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Joined:
    """A participant that is in."""

    sid: ParticipantSid
    facts: NodeFacts
    response: rtc.JoinResponse  # without what the session knows better: ping times, server, ICE servers
