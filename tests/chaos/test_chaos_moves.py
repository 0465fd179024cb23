"""Moves over and over, with real clients: how long picture and tone are away.

HEADWATER_CHAOS_MOVES: moves in all (200). Figures add up over runs in the folder HEADWATER_CHAOS_FIGURES.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from headwater_sandbox.demo.spec import BotSpec
from support.clients import bots, until_seen
from support.deadline import until
from support.figures import Figures
from support.static_fleet import StaticFleet, static_fleet

MOVES = int(os.environ.get("HEADWATER_CHAOS_MOVES", "200"))
WHO = {"ann": "eu", "bob": "us", "cyd": "us", "dan": "ap"}
NODES = ("eu-1", "us-1", "us-2", "ap-1")
PAIRS: list[Pair] = [(a, b) for a in WHO for b in WHO if a != b]

pytestmark = pytest.mark.timeout(60 + 30 * MOVES)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[StaticFleet]:
    async with static_fleet(tmp_path, NODES) as fleet:
        yield fleet


def specs(fleet: StaticFleet) -> list[BotSpec]:
    return [
        fleet.bot(name, number, region, "chaos", hear_ms=20)
        for number, (name, region) in enumerate(WHO.items())
    ]


def touched(clients: Fleet, moved: set[str]) -> tuple[list[int], list[int], list[int]]:
    """Tone gaps and picture gaps of pairs with a moved end, and picture gaps of the others."""
    of_moved = [pair for pair in PAIRS if moved & set(pair)]
    rest = [pair for pair in PAIRS if not moved & set(pair)]
    return (
        [clients.tone_gap_ms(*pair) for pair in of_moved],
        [clients.gap_ms(*pair) for pair in of_moved],
        [clients.gap_ms(*pair) for pair in rest],
    )


async def test_moves_keep_the_tone_within_half_a_second(fleet: StaticFleet) -> None:
    figures, moves = Figures("moves"), 0
    async with bots(specs(fleet)) as clients:
        await until_seen(clients, PAIRS, 60)
        while moves < MOVES:
            node = clients.bots["bob"].attributes["headwater.node"]
            here = {name for name, bot in clients.bots.items() if bot.attributes["headwater.node"] == node}
            clients.mark()
            await fleet.drain(node, rate=50)

            def elsewhere(node: str = node, here: frozenset[str] = frozenset(here)) -> bool:
                return all(clients.bots[name].attributes["headwater.node"] != node for name in here)

            await until(elsewhere, 20, f"{here} have left {node}")
            await until_seen(clients, PAIRS, 20)
            moves += len(here)
            tone, picture, rest = touched(clients, here)
            figures.add(tone=tone, picture=picture, others=rest)
            await fleet.drain(node, draining=False)
        joined = fleet.gateway.printed().count('"join.placed"')
    print(figures.told())
    assert joined == len(WHO), "somebody was dropped and joined anew"
    assert figures.at("tone", 0.99) <= 500
