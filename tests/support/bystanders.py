"""Who else uses this machine while a test measures time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

EVERY_S: Final = 0.5
CANARY_S: Final = 0.01


class Bystanders:
    """The CPU that processes outside the test's own tree have used while it was watched."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.watched_s = 0.0
        self.longest_wait_ms = 0.0
        self._before: dict[tuple[int, float], float] = {}

    @property
    def share(self) -> float:
        """Of the machine, 0 to 1. Processes shorter than the sampling interval are not seen."""
        return self.used_s / (self.watched_s * (os.cpu_count() or 1)) if self.watched_s else 0.0

    def __str__(self) -> str:
        wait = f"{self.longest_wait_ms:.0f} ms"
        return f"others used {self.share:.0%} of the machine, an idle thread waited {wait} for a processor"

    def sample(self, elapsed_s: float) -> None:
        now = foreign_cpu_s()
        if self._before:
            self.used_s += sum(max(0.0, used - self._before.get(key, 0.0)) for key, used in now.items())
            self.watched_s += elapsed_s
        self._before = now


@contextlib.contextmanager
def bystanders() -> Iterator[Bystanders]:
    """Watches until the block ends."""
    found, ended = Bystanders(), threading.Event()

    def watch() -> None:
        found.sample(0.0)
        while not ended.wait(EVERY_S):
            found.sample(EVERY_S)

    def wait_for_a_processor() -> None:
        before = waited_ms()
        while not ended.wait(CANARY_S):
            now = waited_ms()
            found.longest_wait_ms = max(found.longest_wait_ms, now - before)
            before = now

    threads = [threading.Thread(target=work, name="bystanders") for work in (watch, wait_for_a_processor)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def waited_ms() -> float:
    """How long this thread was ready to run and did not, in all; 0 where the kernel does not count it.

    The scheduler's own figure (Linux, sched-stats.rst): the interpreter's lock is not in it.
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e6
    except (OSError, IndexError):
        return 0.0


def foreign_cpu_s() -> dict[tuple[int, float], float]:
    """CPU seconds of each process that is not ours, by process id and start time."""
    me = psutil.Process()
    ours = {me.pid, *(child.pid for child in me.children(recursive=True))}
    found = {}
    for process in psutil.process_iter(["pid", "create_time", "cpu_times"]):
        times = process.info["cpu_times"]
        if process.pid not in ours and times is not None:
            found[process.pid, process.info["create_time"]] = times.user + times.system
    return found
