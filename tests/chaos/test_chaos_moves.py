"""Moves over and over, with real clients: how long picture and tone are away.

HEADWATER_CHAOS_MOVES: moves in all (200). Figures add up over runs in the folder HEADWATER_CHAOS_FIGURES.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from headwater_sandbox.demo.spec import BotSpec, now_ms
from livekit import api
from support.clients import bots, until_seen
from support.deadline import until
from support.figures import Figures
from support.static_fleet import API_KEY, API_SECRET, StaticFleet, static_fleet

MOVES = int(os.environ.get("HEADWATER_CHAOS_MOVES", "200"))
WHO = {"ann": "eu", "bob": "us", "cyd": "us", "dan": "ap"}
NODES = ("eu-1", "us-1", "us-2", "ap-1")
SETTLED_MS = 300
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


async def until_empty(fleet: StaticFleet, node: str) -> None:
    """By its own report: the moves have ended, and only then comes the next drain."""

    async def is_empty() -> bool:
        report = await fleet.report(node)
        return report.participants == 0 and len(report.rooms) == 0

    await until(is_empty, 20, f"{node} reports nobody and no room", every_s=0.2)


async def until_left(fleet: StaticFleet, node: str, stays: str, clients: Fleet) -> None:
    """By the node's own report only who stays is there: the move has ended."""
    left = int(clients.bots[stays].attributes["headwater.node"] == node)

    async def is_left() -> bool:
        return (await fleet.report(node)).participants == left

    await until(is_left, 20, f"{node} reports {left}", every_s=0.2)


async def until_fresh(fleet: StaticFleet, clients: Fleet, since_ms: int) -> None:
    """Every pair decodes again what was sent after that time, and every bot has reported its gaps."""
    try:
        await until_seen(clients, PAIRS, 20)
    except AssertionError as error:
        places = {name: bot.attributes["headwater.node"] for name, bot in clients.bots.items()}
        raise AssertionError(f"{error}\n{places}\n{await dropped(fleet)}") from None

    def fresh() -> bool:
        reported = all(bot.reported_ms > since_ms + SETTLED_MS for bot in clients.bots.values())
        pairs = clients.pairs()
        return reported and all((pairs[pair].last_frame_ms or 0) > since_ms for pair in PAIRS)

    await until(fresh, 20, "every pair goes on after the moves")


async def dropped(fleet: StaticFleet) -> dict[str, list[str]]:
    """By each node, with the reasons."""
    pages = {name: await program.get("/metrics") for name, program in fleet.nodes.items()}
    return {
        name: [row for row in page.splitlines() if row.startswith("headwater_sfu_drops_total")]
        for name, page in pages.items()
    }


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

            await until(elsewhere, 20, f"{here} are told that they leave {node}")
            await until_empty(fleet, node)
            await until_fresh(fleet, clients, now_ms())
            moves += len(here)
            tone, picture, rest = touched(clients, here)
            figures.add(tone=tone, picture=picture, others=rest)
            await fleet.drain(node, draining=False)
        joined = fleet.gateway.printed().count('"join.placed"')
    print(figures.told())
    assert joined == len(WHO), "somebody was dropped and joined anew"
    assert figures.at("tone", 0.99) <= 500


async def test_one_is_led_by_the_api_and_the_tone_stays_within_half_a_second(fleet: StaticFleet) -> None:
    """MoveParticipant to its own room: the same client goes to and fro between two nodes."""
    figures, moves = Figures("api_moves"), 0
    url = fleet.url.replace("ws", "http", 1)
    async with bots(specs(fleet)) as clients, api.LiveKitAPI(url, API_KEY, API_SECRET) as livekit:
        await until_seen(clients, PAIRS, 60)
        while moves < MOVES:
            node = clients.bots["bob"].attributes["headwater.node"]
            clients.mark()
            request = api.MoveParticipantRequest(room="chaos", identity="bob", destination_room="chaos")
            await livekit.room.move_participant(request)

            def elsewhere(node: str = node) -> bool:
                return clients.bots["bob"].attributes["headwater.node"] != node

            await until(elsewhere, 20, f"bob is told that he leaves {node}")
            await until_fresh(fleet, clients, now_ms())
            await until_left(fleet, node, "cyd", clients)
            moves += 1
            tone, picture, rest = touched(clients, {"bob"})
            figures.add(tone=tone, picture=picture, others=rest)
        joined = fleet.gateway.printed().count('"join.placed"')
    print(figures.told())
    assert joined == len(WHO), "somebody was dropped and joined anew"
    assert figures.at("tone", 0.99) <= 500
