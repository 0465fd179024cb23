"""Real clients are led from node to node: picture and tone stop for a moment, nobody joins anew."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headwater_sandbox.demo.judge import Pair
from support.clients import bots, until_seen
from support.deadline import until
from support.static_fleet import StaticFleet, static_fleet

pytestmark = pytest.mark.timeout(150)

WHO = {"ann": "eu", "bob": "us", "cyd": "us"}
PAIRS: list[Pair] = [(a, b) for a in WHO for b in WHO if a != b]
# Bounds for a busy machine; the loops in tests/chaos have the figures.
MOVE_TONE_MS, MOVE_PICTURE_MS, DEATH_PICTURE_MS = 1200, 2000, 3500


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[StaticFleet]:
    async with static_fleet(tmp_path, ("eu-1", "us-1", "us-2")) as fleet:
        yield fleet


async def test_a_drain_and_then_a_death_move_everybody_without_a_new_join(fleet: StaticFleet) -> None:
    specs = [
        fleet.bot(name, number, region, "moves", hear_ms=20)
        for number, (name, region) in enumerate(WHO.items())
    ]
    async with bots(specs) as clients:
        await until_seen(clients, PAIRS, 40)

        def where(name: str) -> str:
            return clients.bots[name].attributes["headwater.node"]

        first = where("bob")
        assert where("cyd") == first != where("ann")
        clients.mark()
        await fleet.drain(first, rate=50)
        await until(lambda: where("bob") == where("cyd") != first, 15, "bob and cyd are elsewhere")

        async def is_empty() -> bool:
            report = await fleet.report(first)
            return report.participants == 0 and len(report.rooms) == 0

        await until(is_empty, 15, "the drained node reports nobody and no room", every_s=0.5)
        await until_seen(clients, PAIRS, 20)
        gaps = {pair: (clients.tone_gap_ms(*pair), clients.gap_ms(*pair)) for pair in PAIRS}
        assert all(tone <= MOVE_TONE_MS and picture <= MOVE_PICTURE_MS for tone, picture in gaps.values()), (
            gaps
        )
        await fleet.drain(first, draining=False)

        second = where("bob")
        clients.mark()
        fleet.signal(second, signal.SIGKILL)
        await until(lambda: where("bob") != second and where("cyd") != second, 15, "both are elsewhere again")
        await until_seen(clients, PAIRS, 20)
        gaps = {pair: (clients.tone_gap_ms(*pair), clients.gap_ms(*pair)) for pair in PAIRS}
        assert all(picture <= DEATH_PICTURE_MS for _, picture in gaps.values()), gaps
        # Each resume counts as one more; a new join would have changed the participant's sid at the gateway.
        printed = fleet.gateway.printed()
        assert printed.count('"join.placed"') == len(WHO), "somebody joined anew"
        assert printed.count('"resume.taken"') >= 4
