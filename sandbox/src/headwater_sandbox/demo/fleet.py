"""Bot processes from their parent's side: start them, gather what they report, end them."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from headwater_sandbox.demo.recorder import PairReport
from headwater_sandbox.demo.spec import BotSpec

STOP_DEADLINE_S: Final = 8.0
MAX_LINE_BYTES: Final = 1 << 20
LATENCY_KEPT: Final = 20_000
STDERR_KEPT_BYTES: Final = 4000


@dataclass
class BotView:
    """The newest report of a bot, and what must not be lost between reports."""

    spec: BotSpec
    state: str = "starting"
    joins: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, PairReport] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    reported_ms: int = 0


class Fleet:
    """All bots of a run. `mark()` starts a new interval for gaps and latencies."""

    def __init__(self) -> None:
        self.bots: dict[str, BotView] = {}
        self.cpu_s: dict[int, float] = {}
        self.late_ms = 0  # how long a process of bots stood still at most, since `mark`
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self._gaps: dict[tuple[str, str], int] = {}
        self._tone_gaps: dict[tuple[str, str], int] = {}
        self._latency: dict[tuple[str, str], list[int]] = {}
        self._logs: list[Any] = []

    async def start(self, specs: Iterable[BotSpec], seed: int) -> None:
        """One process for these bots; it ends with us."""
        specs = list(specs)
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headwater_sandbox.demo.botproc",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C at the terminal is ours to pass on
        )
        self._processes.append(process)
        self._logs.append(errors)
        self.bots |= {spec.identity: BotView(spec) for spec in specs}
        assert process.stdin is not None
        process.stdin.write(json.dumps({"seed": seed, "bots": [asdict(s) for s in specs]}).encode() + b"\n")
        await process.stdin.drain()
        self._readers.append(asyncio.create_task(self._read(process)))

    def mark(self) -> None:
        self._gaps.clear()
        self._tone_gaps.clear()
        self._latency.clear()
        self.late_ms = 0

    def gap_ms(self, subscriber: str, publisher: str) -> int:
        """The longest time without a decoded frame since `mark`, in milliseconds."""
        return self._gaps.get((subscriber, publisher), 0)

    def tone_gap_ms(self, subscriber: str, publisher: str) -> int:
        """The longest time without the publisher's tone since `mark`, in milliseconds."""
        return self._tone_gaps.get((subscriber, publisher), 0)

    def latencies_ms(self) -> list[int]:
        """Capture to decode of every frame since `mark`."""
        return [value for values in self._latency.values() for value in values]

    def pairs(self) -> dict[tuple[str, str], PairReport]:
        """Every (subscriber, publisher) pair that has been seen."""
        return {(who, pub): pair for who, bot in self.bots.items() for pub, pair in bot.pairs.items()}

    def fps(self, subscriber: str, publisher: str) -> float:
        """Decoded frames a second as last reported; 0 for a pair that was never seen."""
        bot = self.bots.get(subscriber)
        pair = bot.pairs.get(publisher) if bot else None
        return pair.fps if pair else 0.0

    def dead(self) -> list[str]:
        """One line for each bot process that has ended, with the end of its stderr."""
        lines = []
        for process, errors in zip(self._processes, self._logs, strict=True):
            if process.returncode is not None:
                size = errors.seek(0, os.SEEK_END)
                errors.seek(max(0, size - STDERR_KEPT_BYTES))
                tail = errors.read().decode(errors="replace").strip()
                lines.append(f"bot process ended with status {process.returncode}: {tail}")
        return lines

    async def stop(self) -> None:
        """Ends all processes within a few seconds."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        waits = [asyncio.create_task(process.wait()) for process in self._processes]
        if waits:
            await asyncio.wait(waits, timeout=STOP_DEADLINE_S)
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*waits, *self._readers, return_exceptions=True)
        for errors in self._logs:
            errors.close()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            message = json.loads(line)
            self.cpu_s[process.pid] = message["cpu_s"]
            self.late_ms = max(self.late_ms, message["late_ms"])
            for bot in message["bots"]:
                self._take(bot, message["at_ms"])

    def _take(self, report: dict[str, Any], at_ms: int) -> None:
        view = self.bots[report["identity"]]
        view.state, view.joins = report["state"], report["joins"]
        view.attributes = report["attributes"] or view.attributes
        view.errors = (view.errors + report["errors"])[-20:]
        view.reported_ms = at_ms
        for item in report["pairs"]:
            pair = PairReport.from_json(item)
            view.pairs[pair.publisher] = pair
            key = (view.spec.identity, pair.publisher)
            self._gaps[key] = max(self._gaps.get(key, 0), pair.gap_ms)
            self._tone_gaps[key] = max(self._tone_gaps.get(key, 0), pair.tone_gap_ms)
            kept = self._latency.setdefault(key, [])
            kept.extend(pair.latency_ms[: max(0, LATENCY_KEPT - len(kept))])
