"""The TURN secret is rotated and the certificate renewed, again and again, under a relayed meeting.

HEADWATER_CHAOS_ROTATIONS sets how often. Each client publishes picture and tone and sees all the others.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from headwater_api import wellknown as wk
from headwater_sandbox.demo.fleet import Fleet
from support.clients import bots, until_seen
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.trusting_sdk import trusted_authority
from support.turn_rotation import Rotation
from support.turn_world import NEW, OLD, TurnWorld, turn_world

ROTATIONS: Final = int(os.environ.get("HEADWATER_CHAOS_ROTATIONS", "10"))
NAMES: Final = tuple(f"user-{number}" for number in range(6))
LONGEST_GAP_S: Final = 1.0
pytestmark = pytest.mark.timeout(120 + 60 * ROTATIONS)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TurnWorld]:
    async with turn_world(tmp_path, authority=trusted_authority(tmp_path, monkeypatch)) as made:
        yield made


async def all_move(fleet: Fleet, client: ProtocolClient) -> None:
    """Until every picture of everybody has gone on for some two seconds."""

    def counts() -> dict[object, int]:
        decoded: dict[object, int] = {pair: report.frames for pair, report in fleet.pairs().items()}
        return decoded | {sid: track.frames for sid, track in client.seen.items() if track.marks}

    started = counts()
    await until(
        lambda: all(now > started[of] + 30 for of, now in counts().items()), 20, "every picture moves"
    )


async def test_rotations_drop_nobody_and_shut_the_old_secret_out(world: TurnWorld) -> None:
    """Six SDK clients by UDP, and one of aiortc by TLS that watches them."""
    world.block_udp("--dport", str(wk.PORT_MEDIA))
    pairs = [(who, other) for who in NAMES for other in NAMES if who != other]
    specs = [world.bot(name, number) for number, name in enumerate(NAMES)]
    gaps: list[float] = []
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(bots(specs[:3], specs[3:]))
        await until_seen(fleet, pairs, 60)
        eve = ProtocolClient(world.url, world.token("relayed", "eve"), turn="turns:", region="eu")
        await stack.enter_async_context(eve)
        await until(lambda: len(eve.sources()) == len(NAMES), 30, "aiortc decodes all of them by TLS")
        assert world.blocked() > 0
        before = await world.allocations()
        references = (OLD, NEW)
        for number in range(ROTATIONS):
            fleet.mark()
            rotation = Rotation(world, *references, serial=1000 + number)
            await rotation.overlap()
            await rotation.end()
            references = references[::-1]
            await all_move(fleet, eve)
            gaps.append(max(fleet.gap_ms(*pair) for pair in pairs) / 1000)
            print(f"rotation {number + 1}: longest gap {gaps[-1]:.2f} s", flush=True)
            assert not fleet.dead()
            assert {bot.joins for bot in fleet.bots.values()} == {1}, "nobody joined anew"
            assert not [m for m in eve.messages if m.WhichOneof("message") in ("leave", "reconnect")]
            assert await world.allocations() >= before
    print(f"{ROTATIONS} rotations, {len(pairs)} pairs: 0 dropped, longest gap {max(gaps):.2f} s")
    assert max(gaps) < LONGEST_GAP_S
