"""Clients that a firewall cuts off from the SFU node connect over TURN, and stay when a TURN node dies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headwater_api import wellknown as wk
from support.clients import bots, until_seen
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.trusting_sdk import trusted_authority
from support.turn_deaths import kill_one
from support.turn_rotation import Rotation, can_allocate
from support.turn_world import NEW, OLD, TURN, TurnWorld, turn_world

pytestmark = pytest.mark.timeout(120)
ANN_BOB = [("ann", "bob"), ("bob", "ann")]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TurnWorld]:
    async with turn_world(tmp_path, authority=trusted_authority(tmp_path, monkeypatch)) as made:
        yield made


async def marks_arrive(viewer: ProtocolClient, source: int, more_than: int = 0, within_s: float = 25) -> int:
    """How many marked pictures of that source were decoded, once it is more than that."""

    def count() -> int:
        return sum(mark.source == source for track in viewer.seen.values() for mark in track.marks)

    await until(lambda: count() > more_than, within_s, "the picture is decoded")
    return count()


async def test_clients_relay_by_udp_and_survive_the_death_of_their_turn_node(world: TurnWorld) -> None:
    """The SDK and aiortc, with nothing but UDP to the TURN nodes open."""
    world.block_udp("--dport", str(wk.PORT_MEDIA))
    for port in (wk.PORT_TURN, wk.PORT_TURN_TLS):
        world.block_tcp(port)
    async with bots([world.bot("ann", 0)], [world.bot("bob", 1)]) as fleet:
        await until_seen(fleet, ANN_BOB, 40)
        async with ProtocolClient(world.url, world.token("relayed", "eve"), turn="turn:", region="eu") as eve:
            await marks_arrive(eve, 0)
        assert world.blocked() > 0, "the direct way was tried and is closed"
        gap_s = await kill_one(world, fleet, "ann")
        # Five seconds hold for 95 of 100 (the long loop of such deaths); a single one may take longer.
        assert gap_s < 8.0
        assert not fleet.dead()
        assert "room.ice_restarts_pushed" in world.gateway.printed()


async def test_without_any_udp_tls_carries_the_media(world: TurnWorld) -> None:
    """The SDK and aiortc, with nothing but TLS to port 443 of the TURN nodes open."""
    world.block_udp()
    world.block_tcp(wk.PORT_TURN)
    async with (
        ProtocolClient(world.url, world.token("tls", "ann"), turn="turns:", region="eu") as ann,
        ProtocolClient(world.url, world.token("tls", "bob"), turn="turns:", region="eu") as bob,
        bots([world.bot("cid", 2, "tls")]) as fleet,
    ):
        await ann.publish(7)
        await marks_arrive(bob, 7)
        await until(lambda: fleet.fps("cid", "ann") > 8, 40, "the SDK decodes the picture")
        await marks_arrive(ann, 2)
        assert world.blocked("udp") > 0 and world.blocked("tcp") > 0
        urls = [url for server in ann.join.ice_servers for url in server.urls] if ann.join else []
        assert [url.partition(":")[0] for url in urls] == ["turn", "turn", "turns"] * 2


async def test_secrets_and_certificates_are_renewed_without_a_drop(world: TurnWorld) -> None:
    world.block_udp("--dport", str(wk.PORT_MEDIA))
    async with (
        ProtocolClient(world.url, world.token("r", "ann"), turn="turn:10.77.1.11", region="eu") as ann,
        ProtocolClient(world.url, world.token("r", "bob"), turn="turns:10.77.1.11", region="eu") as bob,
    ):
        await ann.publish(7)
        seen = await marks_arrive(bob, 7)
        before = await world.allocations()
        assert before >= 2
        rotation = Rotation(world, from_=OLD, to=NEW, serial=4711)
        await rotation.overlap()
        by_tcp = f"turn:{TURN[0]}:{wk.PORT_TURN}?transport=tcp"
        async with ProtocolClient(world.url, world.token("r", "cid"), turn=by_tcp, region="eu") as cid:
            await marks_arrive(cid, 7)
        await rotation.end()
        assert not await can_allocate(TURN[0], rotation.old_secret)
        await marks_arrive(bob, 7, more_than=seen + 30)
        assert await world.allocations() >= before, "nobody was dropped"
        for client in (ann, bob):
            assert not [m for m in client.messages if m.WhichOneof("message") in ("leave", "reconnect")]
