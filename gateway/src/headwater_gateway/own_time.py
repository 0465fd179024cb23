"""Time less what this process's own loop stood still: what nobody could hear is no silence of others."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final

from headwater_gateway.tasks import report

# How often this process says that its own loop turns, and how late that may be before it is a stall.
OWN_BEAT_S: Final = 0.2
OWN_STALL_S: Final = 0.3


class OwnTime:
    """A clock that stands while the loop does: monotonic seconds from `clock`, less every stall.

    It goes from `start` on; until then, everything counts as one stall.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._stood = 0.0
        self._beats: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat; nothing if it does. From a running loop."""
        if self._beats is None:
            self.beat()
            self._beats = asyncio.create_task(self._run(), name="own beats", context=Context())
            report(self._beats, "own_time.died")

    async def aclose(self) -> None:
        """End what `start` began."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)

    def beat(self) -> None:
        """The loop turns."""
        now = self._clock()
        self._stood += self._late(now)
        self._beat_at = now

    async def _run(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(OWN_BEAT_S)

    def now(self) -> float:
        """Also right where it is between a stall's end and the beat that is late for it."""
        return self._clock() - self.stood()

    def stood(self) -> float:
        """So much has been taken off, seconds: it grows with each stall."""
        return self._stood + self._late(self._clock())

    def _late(self, now: float) -> float:
        return max(0.0, now - self._beat_at - OWN_BEAT_S - OWN_STALL_S)
