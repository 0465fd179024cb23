"""Chat said over data channels, on its way to the store: a bounded queue with one task."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog
from headwater_api.ids import RoomId
from headwater_api.reasons import Reason

from headwater_gateway.room.effects import ChatSaid

QUEUE: Final = 5000

log = structlog.get_logger(__name__)


class ChatNotes:
    """`put` never blocks; what a slow store cannot take is dropped and said so."""

    def __init__(
        self,
        keep: Callable[[str, ChatSaid], Awaitable[None]],
        unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._keep, self._unix_ms = keep, unix_ms
        self._queue: asyncio.Queue[tuple[RoomId, ChatSaid]] = asyncio.Queue(QUEUE)
        self._task = asyncio.create_task(self._run(), name="chat notes")

    def put(self, room: RoomId, said: ChatSaid) -> None:
        """Keep it soon, as said now: a client's own clock must not decide how long others' messages stay."""
        try:
            self._queue.put_nowait((room, replace(said, sent_ms=self._unix_ms())))
        except asyncio.QueueFull:
            log.warning("chat.not_kept", room=room, reason=Reason.QUEUE_FULL)

    async def _run(self) -> None:
        while True:
            room, said = await self._queue.get()
            try:
                await self._keep(room, said)
            except Exception:
                log.exception("chat.note_failed", room=room)

    async def aclose(self) -> None:
        """End the task; what waits is lost."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
