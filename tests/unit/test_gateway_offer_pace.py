"""When a subscriber is offered what has changed: the first at once, what follows on its heels as one."""

import asyncio

import pytest
from headwater_gateway.signal.later import Wakeup
from headwater_gateway.signal.offer_pace import BETWEEN_S, ENDS_S, OfferPace


def test_a_lone_change_goes_at_once() -> None:
    pace = OfferPace()
    assert pace.wait(100.0, only_ends=False) == 0.0
    pace.offered(100.0)
    assert pace.wait(100.0 + BETWEEN_S, only_ends=False) == 0.0


def test_changes_on_the_heels_of_an_offer_wait_for_one_moment() -> None:
    pace = OfferPace()
    pace.offered(100.0)
    for at in (100.0, 100.03, 100.09):
        assert pace.wait(at, only_ends=False) == pytest.approx(100.0 + BETWEEN_S - at)


def test_ends_wait_from_the_first_of_them() -> None:
    pace = OfferPace()
    assert pace.wait(100.0, only_ends=True) == pytest.approx(ENDS_S)
    assert pace.wait(100.1, only_ends=True) == pytest.approx(ENDS_S - 0.1)
    assert pace.wait(100.0 + ENDS_S, only_ends=True) == 0.0
    pace.offered(100.3)
    assert pace.wait(200.0, only_ends=True) == pytest.approx(ENDS_S)


def test_a_track_that_comes_does_not_wait_for_one_that_ends() -> None:
    pace = OfferPace()
    pace.wait(100.0, only_ends=True)
    assert pace.wait(100.01, only_ends=False) == 0.0


async def test_a_wakeup_keeps_the_soonest_call() -> None:
    calls: list[str] = []
    woken = asyncio.Event()

    def wake() -> None:
        calls.append("woken")
        woken.set()

    wakeup = Wakeup(wake)
    wakeup.after(60.0)
    wakeup.after(0.01)
    wakeup.after(30.0)
    await asyncio.wait_for(woken.wait(), 5)
    assert calls == ["woken"]
    woken.clear()
    wakeup.after(0.01)
    wakeup.cancel()
    wakeup.after(0.02)
    await asyncio.wait_for(woken.wait(), 5)
    assert calls == ["woken", "woken"]
