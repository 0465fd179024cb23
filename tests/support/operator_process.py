"""`python -m headwater_operator` as a child process, with what it logged."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.deadline import until
from support.kube import poll

START_S: Final = 60.0
STOP_S: Final = 30.0
# It dies with its parent. Not by preexec_fn: gRPC aborts in the fork.
_MAIN: Final = (
    "import ctypes, runpy; ctypes.CDLL(None).prctl(1, 9); "
    "runpy.run_module('headwater_operator', run_name='__main__', alter_sys=True)"
)
TOKEN: Final = "node-token-of-the-tests"


@dataclass
class OperatorProcess:
    """One replica."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def lines(self) -> list[str]:
        """What it wrote to stderr."""
        return self.log.read_text(errors="replace").splitlines()

    def events(self) -> list[dict[str, Any]]:
        """Its log lines that are JSON."""
        return [json.loads(line) for line in self.lines if line.startswith("{") and line.endswith("}")]

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
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, within STOP_S."""
        await until(lambda: self.process.poll() is not None, STOP_S, f"{self.name} ends")
        return await asyncio.to_thread(self.process.wait)

    def started(self, text: str) -> bool:
        """Whether it logged `text`; fails at once where it ended."""
        assert self.process.poll() is None, f"{self.name} ended: {self.lines[-5:]}"
        return self.logged(text)


@contextmanager
def operator_process(
    kubeconfig: Path, namespace: str, name: str = "op-1", *, wait: str = "lease acquired", **environ: str
) -> Iterator[OperatorProcess]:
    """A replica with its Lease in `namespace`, once it has logged `wait`; stopped after the block."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "KUBECONFIG": str(kubeconfig),
        "POD_NAME": name,
        "POD_NAMESPACE": namespace,
        "HEADWATER_ADMIN_PORT": "0",
        "HEADWATER_NODE_TOKEN": TOKEN,
        "HEADWATER_LEASE_DURATION": "3",
        "HEADWATER_RESYNC": "5",
        **environ,
    }
    with tempfile.TemporaryDirectory(prefix="hw-op-") as home:
        log = Path(home) / "stderr"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _MAIN],
                env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=out,
            )  # fmt: skip
        operator = OperatorProcess(name, process, log)
        try:
            poll(f"{name} logs {wait!r}", START_S, lambda: operator.started(wait))
            yield operator
        finally:
            operator.signal(signal.SIGCONT)
            operator.signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
