"""Clients that a firewall cuts off from the SFU node connect over TURN, and stay when a TURN node dies."""

import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headwater_planner.turn_servers import ParticipantSid, rest_credentials
from support.clients import bots, until_seen
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.turn_deaths import kill_one
from support.turn_probe import Refused, TurnProbe
from support.turn_world import NEW, OLD, TURN, TurnWorld, make_certificate, turn_world

pytestmark = pytest.mark.timeout(120)
ANN_BOB = [("ann", "bob"), ("bob", "ann")]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TurnWorld]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls" / "tls.crt"))
    async with turn_world(tmp_path) as made:
        yield made


async def marks_arrive(viewer: ProtocolClient, source: int, more_than: int = 0, within_s: float = 25) -> int:
    """How many marked pictures of that source were decoded, once it is more than that."""

    def count() -> int:
        return sum(mark.source == source for track in viewer.seen.values() for mark in track.marks)

    await until(lambda: count() > more_than, within_s, "the picture is decoded")
    return count()


async def test_the_sdk_relays_by_udp_and_survives_the_death_of_its_turn_node(world: TurnWorld) -> None:
    world.block_udp("--dport", "7882")
    async with bots([world.bot("ann", 0)], [world.bot("bob", 1)]) as fleet:
        await until_seen(fleet, ANN_BOB, 40)
        assert world.blocked() > 0, "the direct way was tried and is closed"
        gap_s = await kill_one(world, fleet, "ann")
        # Five seconds hold for 95 of 100 (the long loop of such deaths); a single one may take longer.
        assert gap_s < 8.0
        assert not fleet.dead()
        assert "room.ice_restarts_pushed" in world.gateway.printed()


async def test_without_any_udp_tls_and_tcp_carry_the_media(world: TurnWorld) -> None:
    world.block_udp()
    async with (
        ProtocolClient(world.url, world.token("tls", "ann"), turn="turns:", region="eu") as ann,
        ProtocolClient(world.url, world.token("tls", "bob"), turn="turns:", region="eu") as bob,
        bots([world.bot("cid", 2, "tls")]) as fleet,
    ):
        await ann.publish(7)
        await marks_arrive(bob, 7)
        await until(lambda: fleet.fps("cid", "ann") > 8, 40, "the SDK decodes the picture")
        await marks_arrive(ann, 2)
        assert world.blocked() > 0
        urls = [url for server in ann.join.ice_servers for url in server.urls] if ann.join else []
        assert [url.partition(":")[0] for url in urls] == ["turn", "turn", "turns"] * 2


async def test_secrets_and_certificates_are_renewed_without_a_drop(world: TurnWorld) -> None:
    world.block_udp("--dport", "7882")
    old_secret, new_secret = "o" * 32, "w" * 32
    async with (
        ProtocolClient(world.url, world.token("r", "ann"), turn="turn:10.77.1.11", region="eu") as ann,
        ProtocolClient(world.url, world.token("r", "bob"), turn="turns:10.77.1.11", region="eu") as bob,
    ):
        await ann.publish(7)
        seen = await marks_arrive(bob, 7)
        before = (await world.desire(TURN[0]))["allocations"]
        assert before >= 2

        (world.secrets / NEW).write_text(new_secret)
        make_certificate(world.tls, *TURN, serial=4711)
        for ip in TURN:
            await until(lambda ip=ip: has_both(world, ip), 10, "both secrets are accepted")
        assert await can_allocate(TURN[0], old_secret) and await can_allocate(TURN[0], new_secret)
        await until(lambda: serial_of(TURN[0]) == 4711, 10, "the new certificate is shown")
        signs = "the first reference signs once the gateway hears that every node takes it"
        await until(lambda: signs_with(world, new_secret), 10, signs)
        async with ProtocolClient(world.url, world.token("r", "cid"), turn="turn:", region="eu") as cid:
            await marks_arrive(cid, 7)

        for ip in TURN:
            answer = await world.desire(ip, secrets=[NEW])
            assert answer["accepted"] == [NEW]
        assert not await can_allocate(TURN[0], old_secret) and await can_allocate(TURN[0], new_secret)
        await marks_arrive(bob, 7, more_than=seen + 30)
        assert (await world.desire(TURN[0], secrets=[NEW]))["allocations"] >= before, "nobody was dropped"
        for client in (ann, bob):
            assert not [m for m in client.messages if m.WhichOneof("message") in ("leave", "reconnect")]


async def has_both(world: TurnWorld, ip: str) -> bool:
    return (await world.desire(ip, secrets=[NEW, OLD]))["accepted"] == [NEW, OLD]


async def signs_with(world: TurnWorld, secret: str) -> bool:
    """Whether a new participant's credentials are of that secret."""
    async with ProtocolClient(world.url, world.token("r", "dan"), turn="turn:", region="eu") as dan:
        assert dan.join is not None
        shown = dan.join.ice_servers[0]
        expiry, _, sid = shown.username.partition(":")
        return shown.credential == rest_credentials(secret, ParticipantSid(sid), int(expiry))[1]


async def can_allocate(ip: str, secret: str) -> bool:
    """Whether credentials of that secret are good for an allocation; its end frees it."""
    username, password = rest_credentials(secret, ParticipantSid("PA_probe"), int(time.time()) + 60)
    try:
        async with TurnProbe((ip, 3478), username, password) as probe:
            await probe.release()
    except Refused as refused:
        assert refused.code == 401, refused
        return False
    return True


def serial_of(ip: str) -> int:
    from cryptography import x509

    pem = ssl.get_server_certificate((ip, 443), timeout=5)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number
