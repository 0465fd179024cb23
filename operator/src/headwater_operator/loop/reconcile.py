"""The workers: take a key, reconcile it, come back when asked. The only place that retries.

What the API server or a node does wrong ends here as a log line and a longer pause for that key; a bug
ends here too, with its trace and a counter, and the other keys go on. Only the loss of the Lease goes on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, Generic

import structlog

from headwater_operator.kube.errors import Conflict, KubeError, NotLeader, Unavailable
from headwater_operator.loop.wake import K, WakeQueue
from headwater_operator.metrics import Metrics
from headwater_operator.nodes.watch import NodeUnreachable

log = structlog.get_logger(__name__)
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 60.0
AWAY_BACKOFF_S: Final = 10.0
DEADLINE_S: Final = 60.0


class Backoff:
    """Doubling pauses with full jitter in their upper half, one row for each key."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._failures: dict[object, int] = {}

    def next_s(self, key: object) -> float:
        """The pause after one more failure."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures, 16)) * self._rng.uniform(0.5, 1.0)

    def reset(self, key: object) -> None:
        """It worked."""
        self._failures.pop(key, None)


class Workers(Generic[K]):
    """`reconcile(key)` returns the seconds until the key wants to be looked at again, or None."""

    def __init__(
        self,
        kind: str,
        queue: WakeQueue[K],
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        rng: Random,
        metrics: Metrics,
    ) -> None:
        self._kind = kind
        self._queue = queue
        self._reconcile = reconcile
        self._backoff = Backoff(rng)
        self._metrics = metrics

    async def run(self, count: int) -> None:
        """Works until cancelled. Raises NotLeader."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._work(), name=f"{self._kind}-{number}")

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._metrics.queue_length.labels(kind=self._kind).set(len(self._queue))
            try:
                again_s = await self._once(key)
            finally:
                self._queue.done(key)
            if again_s is not None:
                self._queue.wake(key, again_s)
            # A pass that writes nothing never waits: thousands of them in a row would starve the Lease.
            await asyncio.sleep(0)

    async def _once(self, key: K) -> float | None:
        started, outcome = time.perf_counter(), "ok"
        try:
            async with asyncio.timeout(DEADLINE_S):
                again_s = await self._reconcile(key)
            self._backoff.reset(key)
            return again_s
        except NotLeader:
            outcome = "not_leader"
            raise
        except (KubeError, NodeUnreachable, TimeoutError) as error:
            outcome = "conflict" if isinstance(error, Conflict) else "failed"
            pause = self._backoff.next_s(key)
            if isinstance(error, Unavailable):
                # Nobody tells us when the API server is back: look often enough to be soon at work again.
                pause = max(min(pause, AWAY_BACKOFF_S), min(error.retry_after_s, MAX_BACKOFF_S))
            log.warning(
                "reconcile failed", kind=self._kind, key=str(key), error=str(error), pause_s=round(pause, 2)
            )
            return pause
        except Exception:
            outcome = "bug"
            log.exception("reconcile raised what it must not", kind=self._kind, key=str(key))
            return MAX_BACKOFF_S
        finally:
            elapsed = time.perf_counter() - started
            self._metrics.reconciles.labels(kind=self._kind, outcome=outcome).observe(elapsed)
