"""A room's mailbox: order, bounds by share, and waiting for so long at most."""

import asyncio

from headwater_gateway.room.mailbox import PLACES, Mailbox, Share


def _job(_: float) -> None:
    pass


async def test_messages_come_in_order_and_a_waiting_room_is_woken() -> None:
    mailbox, jobs = Mailbox(), [lambda now, n=n: now + n for n in range(3)]
    waiting = asyncio.create_task(mailbox.get(30.0))
    await asyncio.sleep(0)
    for job in jobs:
        assert mailbox.put(Share.OWN, None, job)
    assert await asyncio.wait_for(waiting, 2) == (None, jobs[0])
    assert [await mailbox.get(0.0) for _ in range(2)] == [(None, job) for job in jobs[1:]]


async def test_nothing_comes_within_the_wait() -> None:
    mailbox = Mailbox()
    assert await asyncio.wait_for(mailbox.get(0.001), 2) is None
    mailbox.put(Share.OWN, None, _job)
    assert await mailbox.get(0.001) == (None, _job), "a wait that ran out has left nothing behind"


async def test_a_share_that_is_full_keeps_no_other_kind_out() -> None:
    mailbox = Mailbox()
    taken = sum(mailbox.put(Share.PASSING, None, _job) for _ in range(PLACES[Share.PASSING] + 5))
    assert (taken, mailbox.dropped) == (PLACES[Share.PASSING], 5)
    assert mailbox.put(Share.OWN, None, _job)
    await mailbox.get(0.0)
    assert mailbox.put(Share.PASSING, None, _job), "its place is free again"
    assert len(mailbox.rest()) == PLACES[Share.PASSING] + 1
