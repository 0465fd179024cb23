"""Moves and deaths over and over, with real clients: how long picture and tone are away.

HEADWATER_CHAOS_N: moves in all (200), and deaths of each kind (60).
"""

import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair, percentile
from headwater_sandbox.demo.spec import BotSpec
from support.clients import bots, until_seen
from support.deadline import until
from support.static_fleet import StaticFleet, node_running, static_fleet

MOVES = int(os.environ.get("HEADWATER_CHAOS_N", "200"))
DEATHS = int(os.environ.get("HEADWATER_CHAOS_N", "60"))
WHO = {"ann": "eu", "bob": "us", "cyd": "us", "dan": "ap"}
NODES = ("eu-1", "us-1", "us-2", "ap-1")
PAIRS: list[Pair] = [(a, b) for a in WHO for b in WHO if a != b]

pytestmark = pytest.mark.timeout(60 + 30 * (MOVES + DEATHS))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[StaticFleet]:
    async with static_fleet(tmp_path, NODES) as fleet:
        yield fleet


def specs(fleet: StaticFleet) -> list[BotSpec]:
    return [
        fleet.bot(name, number, region, "chaos", hear_ms=20)
        for number, (name, region) in enumerate(WHO.items())
    ]


def told(name: str, values: Sequence[int]) -> str:
    quantiles = {f"p{int(100 * q)}": percentile(values, q) for q in (0.5, 0.95, 0.99)}
    return f"{name}: N {len(values)}, {quantiles}, longest {max(values, default=0)} ms"


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
    tones: list[int] = []
    pictures: list[int] = []
    others: list[int] = []
    moves = 0
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
            tones, pictures, others = tones + tone, pictures + picture, others + rest
            await fleet.drain(node, draining=False)
        joined = fleet.gateway.printed().count('"join.placed"')
    for line in (told("tone", tones), told("picture", pictures), told("others' picture", others)):
        print(line)
    assert joined == len(WHO), "somebody was dropped and joined anew"
    assert percentile(tones, 0.99) <= 500


async def all_up(fleet: StaticFleet) -> bool:
    """The gateway has greeted every node again."""
    rows = re.findall(r"^headwater_gateway_nodes_up\{.*\} (\S+)$", await fleet.gateway.get("/metrics"), re.M)
    return sum(map(float, rows)) == len(NODES)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
async def test_deaths(fleet: StaticFleet, tmp_path: Path, how: str) -> None:
    pictures: list[int] = []
    others: list[int] = []
    async with AsyncExitStack() as stack, bots(specs(fleet)) as clients:
        for round_ in range(DEATHS):
            await until_seen(clients, PAIRS, 60)
            node = clients.bots["bob"].attributes["headwater.node"]
            here = {name for name, bot in clients.bots.items() if bot.attributes["headwater.node"] == node}
            clients.mark()
            fleet.signal(node, getattr(signal, how))

            def elsewhere(node: str = node, here: frozenset[str] = frozenset(here)) -> bool:
                return all(clients.bots[name].attributes["headwater.node"] != node for name in here)

            await until(elsewhere, 20, f"round {round_}: {here} have left {node}")
            await until_seen(clients, PAIRS, 30)
            _, picture, rest = touched(clients, here)
            pictures, others = pictures + picture, others + rest
            if how == "SIGSTOP":
                fleet.signal(node, signal.SIGCONT)
            else:
                folder = tmp_path / f"again-{round_}"
                folder.mkdir()
                program = node_running(node, fleet.nodes[node].address, folder)
                fleet.nodes[node] = await stack.enter_async_context(program)
            await until(lambda: all_up(fleet), 30, "the gateway has all its nodes", every_s=0.2)
    for line in (told(f"{how} picture", pictures), told("others' picture", others)):
        print(line)
    p50, p95 = percentile(pictures, 0.5), percentile(pictures, 0.95)
    assert (p50 <= 1500 and p95 <= 3000) if how == "SIGKILL" else p95 <= 4000
    assert percentile(others, 0.95) <= 200
