"""Whether another gateway lives, from what its link shows. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

BEAT_S: Final = 0.4
# Three beats missed, or an address that answers nothing: kill, freeze and a lost host all show within this.
SILENCE_S: Final = 1.3


class Verdict(Enum):
    """What is known of a gateway."""

    UNKNOWN = "unknown"  # nothing heard and nothing refused so far
    ALIVE = "alive"
    DEAD = "dead"


@dataclass(slots=True)
class Liveness:
    """The evidence about one gateway. Times are seconds of OwnTime."""

    since: float  # when the question was first asked
    heard_at: float | None = None
    broken: bool = True  # no link stands now
    refused: bool = False  # its address refuses connections: the process is gone

    def hear(self, now: float) -> None:
        """A beat came."""
        self.heard_at, self.broken, self.refused = now, False, False

    def lose(self, *, refused: bool) -> None:
        """The link broke, or a new one could not be opened."""
        self.broken, self.refused = True, refused

    def verdict(self, now: float) -> Verdict:
        """A refused connection is proof, of one that was heard before; silence must last."""
        if self.refused and self.heard_at is not None:
            return Verdict.DEAD
        if now - (self.since if self.heard_at is None else self.heard_at) >= SILENCE_S:
            return Verdict.DEAD
        return Verdict.UNKNOWN if self.heard_at is None else Verdict.ALIVE
