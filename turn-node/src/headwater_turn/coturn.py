"""The coturn process: started, listened to, signalled, ended. It dies with the agent."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headwater_turn.version import Version, parse_version

log = logging.getLogger(__name__)
PROGRAM: Final = "turnserver"
VERSION_S: Final = 10.0
STOP_S: Final = 3.0
MAX_LINE: Final = 16_384
_PR_SET_PDEATHSIG: Final = 1
# coturn says these for each packet of each client; the rest is worth keeping.
_NOISE: Final = ("incoming packet", "usage:", ": new, ", "refreshed,", "delete:", "closed (", "peer ", "IPv")


def _environment() -> dict[str, str]:
    """Nothing of the agent's, such as the nodes' token, is coturn's to know: it faces the Internet."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


async def find_version() -> Version:
    """The installed coturn's. Raises UnusableVersion, OSError where it is not installed, TimeoutError."""
    async with asyncio.timeout(VERSION_S):
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "--version",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(),
        )
        out, _ = await process.communicate()
    return parse_version(out.decode(errors="replace"))


class Coturn:
    """One process. `run` returns when it has ended, however that came."""

    def __init__(self, config: Path, on_line: Callable[[str], None], run_as: int | None = None) -> None:
        """`run_as`: its user and group, and no other group and no capability; None: the caller's."""
        self._config, self._on_line, self._run_as = config, on_line, run_as
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Raises OSError where it is not installed."""
        libc = ctypes.CDLL(None)  # not in the fork: it allocates
        parent, run_as = os.getpid(), self._run_as

        def in_child() -> None:
            if run_as is not None:  # uvloop takes no user; prctl comes after it, or is reset
                os.setgroups([])
                os.setgid(run_as)
                os.setuid(run_as)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the agent died in between
                os._exit(1)

        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "-c",
            str(self._config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=MAX_LINE,
            env=_environment(),
            preexec_fn=in_child,
        )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def run(self) -> int:
        """Reads until the process has ended; its exit code, negative for a signal."""
        assert self._process is not None and self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than the limit: not one of those we read
                continue
            if not line:
                return await self._process.wait()
            text = line.decode(errors="replace").rstrip()
            self._on_line(text)
            if text and not any(part in text for part in _NOISE):
                log.debug("coturn: %s", text)

    def signal(self, number: signal.Signals) -> None:
        """Nothing if it has ended."""
        if self.alive and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after STOP_S."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()
