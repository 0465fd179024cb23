"""Clients that a firewall cuts off from the SFU node connect over TURN, and stay when a TURN node dies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.clients import bots, until_seen
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.turn_world import TURN, TurnWorld, turn_world

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TurnWorld]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls" / "tls.crt"))
    async with turn_world(tmp_path) as made:
        yield made


async def allocations(world: TurnWorld) -> dict[str, int]:
    return {ip: int((await world.desire(ip))["allocations"]) for ip in TURN}


async def sees_marks(viewer: ProtocolClient, source: int, within_s: float = 20) -> None:
    def seen() -> bool:
        return any(mark.source == source for track in viewer.seen.values() for mark in track.marks)

    await until(seen, within_s, "the picture is decoded")


async def test_the_sdk_relays_by_udp_and_survives_the_death_of_its_turn_node(world: TurnWorld) -> None:
    world.block_udp("--dport", "7882")
    async with bots([world.bot("ann", 0)], [world.bot("bob", 1)]) as fleet:
        await until_seen(fleet, [("ann", "bob"), ("bob", "ann")], 40)
        assert world.blocked() > 0, "the direct way was tried and is closed"
        print(await allocations(world), world.gateway.printed()[-2000:])
