"""A room's mailbox: messages in order of arrival, with a place of their own for each kind of sender."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from headwater_api.ids import ParticipantSid

from headwater_gateway.tasks import wake

Job = Callable[[float], object]


class Share(StrEnum):
    """Who sends. A flood of one kind fills its own share and keeps no other kind out."""

    PASSING = "passing"  # what nodes say all the time: levels, quality, clients' data
    EVENT = "event"  # what nodes say once
    REQUEST = "request"  # of clients
    COMMAND = "command"  # joins and the API: somebody waits for the answer
    OWN = "own"  # who goes or comes back, and what the gateway itself knows
    LAST = "last"  # the room's end here


# A room of 1,000 may be told of each participant's two transports and tracks at once, or lose all of them.
PLACES: Final = {
    Share.PASSING: 1024,
    Share.EVENT: 4096,
    Share.REQUEST: 2048,
    Share.COMMAND: 2048,
    Share.OWN: 4096,
    Share.LAST: 16,
}


class Mailbox:
    """Bounded by its shares. `put` from any task of the loop, `get` by the room's own."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Share, ParticipantSid | None, Job]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._taken = dict.fromkeys(Share, 0)
        self.dropped = 0

    def put(self, share: Share, blame: ParticipantSid | None, job: Job) -> bool:
        """False: there is no place left for that kind."""
        if self._taken[share] >= PLACES[share]:
            self.dropped += 1
            return False
        self._taken[share] += 1
        self._queue.append((share, blame, job))
        wake(self._waiter)
        return True

    async def get(self, wait_s: float) -> tuple[ParticipantSid | None, Job] | None:
        """The oldest message, with the participant that it is of; None: none has come for so long."""
        if not self._queue:
            await self._wait(wait_s)
        return self._take() if self._queue else None

    async def _wait(self, wait_s: float) -> None:
        """Until there is a message. A bare timer: this is done for each message of a quiet room."""
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(wait_s, wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def rest(self) -> list[Job]:
        """All that is left, taken out."""
        return [self._take()[1] for _ in range(len(self._queue))]

    def _take(self) -> tuple[ParticipantSid | None, Job]:
        share, blame, job = self._queue.popleft()
        self._taken[share] -= 1
        return blame, job
