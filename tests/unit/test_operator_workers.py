"""The workers share the event loop with everything else."""

import asyncio
import time
from random import Random

from headwater_operator.loop.reconcile import Workers
from headwater_operator.loop.wake import WakeQueue
from headwater_operator.metrics import Metrics


async def test_thousands_of_due_keys_do_not_hold_up_the_loop() -> None:
    queue: WakeQueue[int] = WakeQueue(monotonic=time.monotonic)
    done: list[int] = []
    seen: list[int] = []

    async def reconcile(key: int) -> float | None:
        done.append(key)
        return None

    for key in range(5000):
        queue.wake(key)
    workers = asyncio.create_task(
        Workers("Meeting", queue, reconcile, rng=Random(1), metrics=Metrics()).run(4)
    )
    while len(done) < 5000:
        await asyncio.sleep(0)
        seen.append(len(done))
    workers.cancel()
    await asyncio.gather(workers, return_exceptions=True)
    steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    assert max(steps) <= 100, "others had their turn in between"
