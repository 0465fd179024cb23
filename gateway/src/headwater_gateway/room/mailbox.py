"""A room's mailbox: messages in order of arrival, with a place of their own for each kind of sender."""

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final

from headwater_api.ids import ParticipantSid

Job = Callable[[float], None]


class Share(Enum):
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
        self._queue: asyncio.Queue[tuple[Share, ParticipantSid | None, Job]] = asyncio.Queue()
        self._taken: Counter[Share] = Counter()
        self.dropped = 0

    def put(self, share: Share, blame: ParticipantSid | None, job: Job) -> bool:
        """False: there is no place left for that kind."""
        if self._taken[share] >= PLACES[share]:
            self.dropped += 1
            return False
        self._taken[share] += 1
        self._queue.put_nowait((share, blame, job))
        return True

    async def get(self) -> tuple[ParticipantSid | None, Job]:
        """The oldest message, with the participant that it is of."""
        return self._took(await self._queue.get())

    def rest(self) -> list[Job]:
        """All that is left, taken out."""
        return [self._took(self._queue.get_nowait())[1] for _ in range(self._queue.qsize())]

    def _took(self, item: tuple[Share, ParticipantSid | None, Job]) -> tuple[ParticipantSid | None, Job]:
        share, blame, job = item
        self._taken[share] -= 1
        return blame, job
