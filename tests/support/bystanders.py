"""Who else uses this machine while a test measures time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Final

import psutil

EVERY_S: Final = 0.5


class Bystanders:
    """The CPU that processes outside the test's own tree have used while it was watched."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.watched_s = 0.0
        self._before: dict[tuple[int, float], float] = {}

    @property
    def share(self) -> float:
        """Of the machine, 0 to 1. Processes shorter than the sampling interval are not seen."""
        return self.used_s / (self.watched_s * (os.cpu_count() or 1)) if self.watched_s else 0.0

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

    watcher = threading.Thread(target=watch, name="bystanders")
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


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
