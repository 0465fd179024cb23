"""The queue of keys: it coalesces, keeps its intervals, and gives a key to one worker at a time."""

import asyncio
import time
from random import Random

import pytest
from headwater_operator.kube.errors import Conflict, NotLeader, Unavailable
from headwater_operator.kube.limits import TokenBucket
from headwater_operator.loop.reconcile import MAX_BACKOFF_S, Backoff, Workers
from headwater_operator.loop.wake import WakeQueue
from headwater_operator.metrics import Metrics
from support.deadline import until


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def is_empty(queue: WakeQueue[str]) -> bool:
    """Whether `get` would wait, seen after the loop has had its turns."""
    task = asyncio.create_task(queue.get())
    for _ in range(5):
        await asyncio.sleep(0)
    waiting = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return waiting


async def test_a_key_waits_once() -> None:
    queue: WakeQueue[str] = WakeQueue(monotonic=Clock())
    for _ in range(100):
        queue.wake("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert await is_empty(queue)


async def test_the_sooner_wish_wins() -> None:
    clock = Clock()
    queue: WakeQueue[str] = WakeQueue(monotonic=clock)
    queue.wake("a", 60)
    queue.wake("b", 30)
    queue.wake("a", 10)
    queue.wake("a", 50)
    clock.now += 10
    assert await queue.get() == "a"
    queue.done("a")
    clock.now += 20
    assert await queue.get() == "b"
    queue.done("b")
    clock.now += 60
    assert await is_empty(queue), "the later wishes for a were the same wish"


async def test_a_key_that_is_worked_on_is_given_out_again_only_when_done() -> None:
    queue: WakeQueue[str] = WakeQueue(monotonic=Clock())
    queue.wake("a")
    assert await queue.get() == "a"
    queue.wake("a")
    assert await is_empty(queue)
    queue.done("a")
    assert await queue.get() == "a"


async def test_a_key_is_not_worked_on_more_often_than_its_interval() -> None:
    clock = Clock()
    queue: WakeQueue[str] = WakeQueue(monotonic=clock, min_interval_s=2.0)
    queue.wake("a")
    assert await queue.get() == "a"
    queue.done("a")
    queue.wake("a")
    clock.now += 1.9
    assert await is_empty(queue)
    clock.now += 0.2
    assert await queue.get() == "a"


async def test_a_forgotten_key_does_not_come() -> None:
    queue: WakeQueue[str] = WakeQueue(monotonic=Clock())
    queue.wake("a")
    queue.forget("a")
    assert await is_empty(queue)


async def test_a_waiting_worker_hears_of_a_new_key() -> None:
    queue: WakeQueue[str] = WakeQueue(monotonic=Clock())
    task = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.wake("a")
    assert await asyncio.wait_for(task, 5) == "a"


class TestWorkers:
    async def test_what_the_server_does_wrong_is_tried_again(self) -> None:
        errors: list[Exception] = [Unavailable("down"), Conflict("raced")]
        seen: list[str] = []
        queue: WakeQueue[str] = WakeQueue(monotonic=time.monotonic)

        async def reconcile(key: str) -> None:
            seen.append(key)
            if errors:
                raise errors.pop(0)

        task = asyncio.create_task(Workers("Test", queue, reconcile, rng=Random(1), metrics=Metrics()).run(1))
        queue.wake("a")
        await until(lambda: len(seen) == 3, 10, "two failures and a success")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(queue) == 0, "after the success nothing waits"

    async def test_a_bug_in_one_key_does_not_end_the_worker(self) -> None:
        seen: list[str] = []
        queue: WakeQueue[str] = WakeQueue(monotonic=Clock())

        async def reconcile(key: str) -> None:
            seen.append(key)
            if key == "bad":
                raise ZeroDivisionError

        task = asyncio.create_task(Workers("Test", queue, reconcile, rng=Random(1), metrics=Metrics()).run(1))
        queue.wake("bad")
        await until(lambda: "bad" in seen, 15, "the bad key")
        queue.wake("good")
        await until(lambda: "good" in seen, 15, "the good key")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_the_loss_of_the_lease_ends_the_workers(self) -> None:
        queue: WakeQueue[str] = WakeQueue(monotonic=Clock())

        async def reconcile(key: str) -> None:
            raise NotLeader("lost")

        queue.wake("a")
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(
                Workers("Test", queue, reconcile, rng=Random(1), metrics=Metrics()).run(2), 5
            )
        assert caught.group_contains(NotLeader)


def test_backoff_doubles_up_to_its_limit_and_starts_anew() -> None:
    backoff = Backoff(Random(1))
    pauses = [backoff.next_s("a") for _ in range(12)]
    assert 0.25 <= pauses[0] <= 0.5 and 30 <= pauses[-1] <= MAX_BACKOFF_S
    assert backoff.next_s("b") <= 0.5, "keys do not share a pause"
    backoff.reset("a")
    assert backoff.next_s("a") <= 0.5


def test_the_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(rate_per_s=10, burst=3, monotonic=clock)
    assert [bucket.try_take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.try_take() == pytest.approx(0.1)
    clock.now += 0.11
    assert bucket.try_take() == 0.0
    clock.now += 1000
    assert [bucket.try_take() for _ in range(4)][3] > 0, "it does not save up more than a burst"
