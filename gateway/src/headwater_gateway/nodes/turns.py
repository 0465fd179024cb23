"""When a node is called: whichever of its rooms has something to say by then says it in the same call."""

import asyncio
from typing import Final

from headwater_gateway.nodes.call_pace import CallPace
from headwater_gateway.tasks import wake

TICK_S: Final = 0.001  # of the loop's timers


class Turns:
    """One node's pace of calls, shared by the command queues of all rooms there. By the loop's clock."""

    def __init__(self) -> None:
        self._pace = CallPace()
        self._is_open = False  # a call goes out in this turn of the loop
        self._resting: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, *, is_awaited: bool) -> float:
        """Seconds until the next call. `is_awaited`: somebody waits until the node has its commands."""
        if self._is_open:
            return 0.0
        return self._pace.wait(asyncio.get_running_loop().time(), is_awaited=is_awaited)

    def rest(self, pause_s: float) -> "asyncio.Future[None]":
        """Done in so many seconds, or sooner: with somebody else's call. Ask `wait` again then."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(pause_s, TICK_S)
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(due, self._on_time)
        rest: asyncio.Future[None] = loop.create_future()
        self._resting.add(rest)
        rest.add_done_callback(self._resting.discard)
        return rest

    def _on_time(self) -> None:
        self._timer = None
        self._wake_all()

    def _wake_all(self) -> None:
        for rest in tuple(self._resting):
            wake(rest)

    def take(self) -> None:
        """A call goes out now. Who rests is woken and may say something in it."""
        if not self._is_open:
            self._is_open = True
            self._wake_all()
            asyncio.get_running_loop().call_soon(self._over)

    def _over(self) -> None:
        self._is_open = False
        self._pace.called(asyncio.get_running_loop().time())
