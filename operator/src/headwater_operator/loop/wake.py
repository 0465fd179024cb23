"""A keyed queue that coalesces: a key waits once, is worked on by one worker at a time, and no more
often than every `min_interval_s`. Its length is bounded by the number of live objects."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_REMEMBERED = 4096


class WakeQueue(Generic[K]):
    """`wake` from anywhere in the loop; `get` … `done` in workers."""

    def __init__(self, *, monotonic: Callable[[], float], min_interval_s: float = 0.0) -> None:
        self._monotonic = monotonic
        self._min_interval_s = min_interval_s
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = itertools.count()
        self._busy: set[K] = set()
        self._not_before: dict[K, float] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def wake(self, key: K, delay_s: float = 0.0) -> None:
        """Work on `key` in `delay_s` seconds or sooner, if it is already due sooner."""
        due = max(self._monotonic() + delay_s, self._not_before.get(key, 0.0))
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._busy:
            self._push(key)

    def forget(self, key: K) -> None:
        """The object is gone: drop what waits for it."""
        self._due.pop(key, None)
        self._not_before.pop(key, None)

    async def get(self) -> K:
        """The key that is due first; the caller owes a `done`."""
        while True:
            self._changed.clear()
            wait = self._drop_stale()
            if wait is not None and wait <= 0.0:
                key = heapq.heappop(self._heap)[2]
                del self._due[key]
                self._busy.add(key)
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """The work on `key` has ended; it may be given out again."""
        self._busy.discard(key)
        if self._min_interval_s > 0.0:
            self._prune()
            self._not_before[key] = self._monotonic() + self._min_interval_s
        if key in self._due:
            self._due[key] = max(self._due[key], self._not_before.get(key, 0.0))
            self._push(key)

    def _prune(self) -> None:
        """Keys of objects that are long gone must not stay for ever."""
        if len(self._not_before) >= _REMEMBERED:
            now = self._monotonic()
            self._not_before = {key: at for key, at in self._not_before.items() if at > now}

    def _push(self, key: K) -> None:
        heapq.heappush(self._heap, (self._due[key], next(self._serial), key))
        self._changed.set()

    def _drop_stale(self) -> float | None:
        """Seconds until the first live entry is due; None where there is none."""
        while self._heap:
            due, _, key = self._heap[0]
            if key not in self._busy and self._due.get(key) == due:
                return due - self._monotonic()
            heapq.heappop(self._heap)
        return None
