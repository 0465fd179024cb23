"""`python -m headwater_operator` as a child process, with what it logged."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.deadline import until

STOP_S: Final = 30.0
# `python -m headwater_operator` that dies with its parent. Not by preexec_fn: gRPC aborts in the fork.
_MAIN: Final = (
    "import ctypes, runpy; ctypes.CDLL(None).prctl(1, 9); "
    "runpy.run_module('headwater_operator', run_name='__main__', alter_sys=True)"
)
TOKEN: Final = "node-token-of-the-tests"


@dataclass
class OperatorProcess:
    """One replica."""

    name: str
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        """Its log lines that are JSON."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def logged(self, text: str) -> bool:
        """Whether it said so."""
        return any(text in line for line in self.lines)

    @property
    def admin(self) -> str:
        """http://host:port of its admin server, once it stands by; else empty."""
        ports = [event["admin_port"] for event in self.events() if "admin_port" in event]
        return f"http://127.0.0.1:{ports[0]}" if ports else ""

    def signal(self, number: int) -> None:
        """To its process id, if it still runs."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, within STOP_S."""
        async with asyncio.timeout(STOP_S):
            return await self.process.wait()


@asynccontextmanager
async def operator_process(
    kubeconfig: Path, namespace: str, name: str = "op-1", *, wait: str = "lease acquired", **environ: str
) -> AsyncIterator[OperatorProcess]:
    """Starts a replica for one namespace and waits until it has logged `wait`; stops it after the block."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "KUBECONFIG": str(kubeconfig),
        "POD_NAME": name,
        "POD_NAMESPACE": namespace,
        "HEADWATER_NAMESPACES": namespace,
        "HEADWATER_ADMIN_PORT": "0",
        "HEADWATER_NODE_TOKEN": TOKEN,
        "HEADWATER_LEASE_DURATION": "3",
        "HEADWATER_RESYNC": "5",
        **environ,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _MAIN,
        env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    operator = OperatorProcess(name, process)
    reader = asyncio.create_task(_read(operator))
    try:
        await until(
            lambda: operator.logged(wait) or process.returncode is not None, 40, f"{name} logs {wait!r}"
        )
        assert process.returncode is None, f"{name} ended with {process.returncode}: {operator.lines[-5:]}"
        yield operator
    finally:
        operator.signal(signal.SIGCONT)
        operator.signal(signal.SIGTERM)
        try:
            await operator.ended()
        except TimeoutError:
            operator.signal(signal.SIGKILL)
            await operator.ended()
        await reader


async def _read(operator: OperatorProcess) -> None:
    assert operator.process.stderr is not None
    async for line in operator.process.stderr:
        operator.lines.append(line.decode(errors="replace").rstrip())
