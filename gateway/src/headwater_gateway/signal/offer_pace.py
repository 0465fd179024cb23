"""When a subscriber is offered what has changed. Pure."""

from typing import Final

# An offer costs the client and us far more than one more m-line in it, and in a room that fills each
# publication would be one for everybody. LiveKit's server negotiates no more often than each 0.15 s.
BETWEEN_S: Final = 0.1
# Nobody waits for the end of an m-line: its track is paused at once, and the roster (0.15 s) says who left.
ENDS_S: Final = 0.25


class OfferPace:
    """The first change goes at once; what follows on its heels waits and goes as one."""

    def __init__(self) -> None:
        self._offered_at = self._ended_at = float("-inf")
        self._has_ends = False

    def wait(self, now: float, *, only_ends: bool) -> float:
        """Seconds until the next offer should go. `only_ends`: all that has changed are tracks that end."""
        due = self._offered_at + BETWEEN_S
        if only_ends:
            if not self._has_ends:
                self._has_ends, self._ended_at = True, now
            due = max(due, self._ended_at + ENDS_S)
        return max(0.0, due - now)

    def offered(self, now: float) -> None:
        """An offer has gone out."""
        self._offered_at, self._has_ends = now, False
