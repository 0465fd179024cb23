"""Tasks that run as long as their owner: one that ends by a fault of ours must not end in silence."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def report(task: "asyncio.Task[Any]", event: str) -> None:
    """Log the exception that ends the task, if one does, under that event."""

    def ended(done: "asyncio.Task[Any]") -> None:
        if not done.cancelled() and done.exception() is not None:
            log.error(event, task=done.get_name(), exc_info=done.exception())

    task.add_done_callback(ended)


class LateTask:
    """A task that is made only once it has something to do, in `delay_s` seconds. `aclose` ends it."""

    def __init__(self, delay_s: float, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work, self._name = work, name
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._work(), name=self._name)

    async def aclose(self) -> None:
        """Ended, whether it has begun or not."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def wake(waiter: "asyncio.Future[None] | None") -> None:
    """Let a task go on that waits for a bare future; nothing if none waits."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
