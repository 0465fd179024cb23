"""How often one node is called. Pure."""

from typing import Final

# The first command goes at once; what follows on its heels is collected: a join is told in several steps, and
# a call costs both ends far more than one more command in it.
BETWEEN_S: Final = 0.01
# A node to which something happens all the time is called so often: a lone join is told before that matters.
SUSTAINED_S: Final = 0.04
IN_A_ROW: Final = 4


class CallPace:
    """So many calls may follow each other, then they keep a distance (generic cell rate, ITU-T I.371)."""

    def __init__(self) -> None:
        self._not_before = self._due = float("-inf")

    def wait(self, now: float, *, is_awaited: bool) -> float:
        """Seconds until the next call. `is_awaited`: somebody waits until the node has its commands."""
        due = self._not_before
        if not is_awaited:
            due = max(due, self._due - (IN_A_ROW - 1) * SUSTAINED_S)
        return max(0.0, due - now)

    def called(self, now: float) -> None:
        """A call goes out."""
        self._not_before = now + BETWEEN_S
        self._due = max(self._due, now) + SUSTAINED_S
