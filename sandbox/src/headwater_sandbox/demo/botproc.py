"""A process of bots: specs as one JSON line on stdin, reports as JSON lines on stdout.

Tokens come by stdin because arguments are readable by every user of the machine. The process ends
when its stdin closes or its parent dies.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import random
import signal
import sys
from typing import Any, Final

from headwater_sandbox.demo.bot import Bot
from headwater_sandbox.demo.spec import BotSpec, now_ms

REPORT_S: Final = 0.5
TICK_S: Final = 0.02
STOP_DEADLINE_S: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGKILL when the parent goes (Linux); ends now if it has gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


class Lateness:
    """How long this process stood still: none of its bots sent or saw a picture then."""

    def __init__(self) -> None:
        self._longest_s = 0.0

    async def watch(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            self._longest_s = max(self._longest_s, clock() - due)

    def take_ms(self) -> int:
        """The longest since the last call."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return round(1000 * longest_s)


async def serve(specs: list[BotSpec], seed: int) -> None:
    """Runs the bots until stdin ends, reporting twice a second."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    loop.add_reader(sys.stdin.fileno(), _on_stdin, stop)
    bots = [Bot(spec, random.Random(seed * 1000 + spec.source)) for spec in specs]
    tasks = [asyncio.create_task(bot.run(stop)) for bot in bots]
    lateness = Lateness()
    watch = asyncio.create_task(lateness.watch())
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), REPORT_S)
        own = {"at_ms": now_ms(), "cpu_s": sum(os.times()[:2]), "late_ms": lateness.take_ms()}
        _write({**own, "bots": [bot.take() for bot in bots]}, stop)
    loop.remove_reader(sys.stdin.fileno())
    _, late = await asyncio.wait(tasks, timeout=STOP_DEADLINE_S)
    for task in late:
        task.cancel()
    watch.cancel()
    await asyncio.gather(watch, *tasks, return_exceptions=True)


def _on_stdin(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


def _write(message: dict[str, Any], stop: asyncio.Event) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stop.set()


def main() -> None:
    parent = int(sys.argv[1])
    die_with_parent(parent)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # Unbuffered, one byte at a time: what follows the first line must stay readable by the loop.
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        line += byte
    config = json.loads(line)
    asyncio.run(serve([BotSpec(**spec) for spec in config["bots"]], config["seed"]))
    # The SDK's native threads may outlive their rooms: nothing of ours is left to wait for.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
