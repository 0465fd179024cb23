"""What a session does after a while, whatever it does meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

# The first ICE restart after a takeover is answered so much later: more than the 0.48 s between two checks of
# libwebrtc. By then the client's new sockets have checked the address under the old credentials, the answer
# makes them check it anew, and for that one round trip the connection is not `connected`. Clients of the Rust
# engine look for this: a connection that never left `connected` has them wait three seconds, in which they
# send no data and no requests. Media flows by the old sockets meanwhile.
REVIVED_ANSWER_S: Final = 0.6


class Later:
    """Owner of tasks that begin late."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, delay_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """`work` in `delay_s` seconds."""

        async def run() -> None:
            await asyncio.sleep(delay_s)
            await work()

        self._tasks.add(task := asyncio.create_task(run(), name="session-later"))
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """All that was asked for is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Wakeup:
    """One call to come, the soonest that was asked for."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def after(self, delay_s: float) -> None:
        """Call in `delay_s` seconds at the latest."""
        at = now() + delay_s
        if self._timer is not None and self._at <= at:
            return
        self.cancel()
        self._at, self._timer = at, asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._wake()

    def cancel(self) -> None:
        """No call comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def now() -> float:
    """Seconds of the running loop's clock."""
    return asyncio.get_running_loop().time()
