"""A TURN node is killed again and again under relayed meetings; its users are back within seconds.

Fifty kills take some ten minutes. With HEADWATER_CHAOS_TURN_GAPS=FILE each run adds its gaps to the file and
is judged with all that are there, so that two halves make a whole.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.clients import bots, until_seen
from support.deadline import until
from support.turn_deaths import kill_one
from support.turn_world import TURN, TurnWorld, turn_world, world_knows

KILLS = int(os.environ.get("HEADWATER_CHAOS_TURN_KILLS", "50"))
GAPS = os.environ.get("HEADWATER_CHAOS_TURN_GAPS", "")
pytestmark = pytest.mark.timeout(60 + 40 * KILLS)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[TurnWorld]:
    async with turn_world(tmp_path) as made:
        yield made


async def test_relayed_users_are_back_within_five_seconds(world: TurnWorld) -> None:
    world.block_udp("--dport", "7882")
    gaps: list[float] = []
    async with bots([world.bot("ann", 0)], [world.bot("bob", 1)]) as fleet:
        await until_seen(fleet, [("ann", "bob"), ("bob", "ann")], 40)
        for _ in range(KILLS):
            gaps.append(await kill_one(world, fleet, "ann"))
            print(f"gap {gaps[-1]:.2f} s", flush=True)
            if GAPS:
                with Path(GAPS).open("a") as kept:
                    kept.write(f"{gaps[-1]:.3f}\n")
            (dead,) = set(TURN) - set(world.turn)
            await world.start_turn(dead)
            await until(lambda: world_knows(world, len(TURN)), 20, "both TURN nodes serve again")
        assert world.blocked() > 0
        assert not fleet.dead()
    if GAPS:
        gaps = [float(line) for line in Path(GAPS).read_text().split()]
    gaps.sort()
    p50, p95 = gaps[len(gaps) // 2], gaps[min(len(gaps) - 1, int(len(gaps) * 0.95))]
    print(f"{len(gaps)} kills: gap p50 {p50:.2f} s, p95 {p95:.2f} s, longest {gaps[-1]:.2f} s")
    assert p95 <= 5.0, gaps
