"""TLS between gateways: what is passed on cannot be read on the way, and goes to nobody else."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from headwater_api.ids import GatewayId, RoomId
from headwater_api.reasons import Reason
from headwater_api.wellknown import (
    ANNOTATION_GATEWAY_TLS,
    GATEWAY_TLS_NAME,
    NODE_TLS_NAME,
    PORT_GATEWAY_TLS,
)
from headwater_gateway.directory.liveness import Verdict
from headwater_gateway.fleet_views import gateway_peer, takes_rooms
from headwater_gateway.peer_tls import PeerCertificate, checking
from headwater_gateway.plane import Plane
from headwater_gateway.settings import SettingsError
from headwater_gateway.signal.types import GatewayPeer
from livekit import api
from structlog.testing import capture_logs
from support.authority import Authority
from support.deadline import until
from support.gateway_edge import API_KEY, API_SECRET, Edge, FakePlane, running_edge, token
from support.gateways import SignalClient, running_gateways

OWNER = GatewayId("owner")


@dataclass
class Wire:
    """A TCP connection between gateways with somebody who reads it."""

    port: int = 0
    seen: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def tapped(port: int) -> AsyncIterator[Wire]:
    """Passes on to that port of this machine, and keeps what it passes."""
    wire, tasks = Wire(), set[asyncio.Task[None]]()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            wire.seen += data
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_connection("127.0.0.1", port)
        for task in (asyncio.create_task(pump(reader, far)), asyncio.create_task(pump(near, writer))):
            tasks.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def secret(authority: Authority, folder: Path, name: str = GATEWAY_TLS_NAME, serial: int = 1) -> Path:
    """A directory as the Secret is mounted."""
    authority.issue(folder, name, serial=serial)
    (folder / "ca.crt").write_bytes((authority.directory / "ca.crt").read_bytes())
    return folder


@asynccontextmanager
async def owner_running(folder: Path, tls_dir: Path | None) -> AsyncIterator[Edge]:
    folder.mkdir()
    async with running_edge(folder, gateway_tls_dir=tls_dir) as edge:
        yield edge


@asynccontextmanager
async def passing_on(folder: Path, peer: GatewayPeer) -> AsyncIterator[Edge]:
    """A gateway whose room `demo` lives at that peer."""
    folder.mkdir()
    async with running_edge(folder, FakePlane(owners={"demo": peer}, others=(peer,))) as edge:
        yield edge


async def joined(edge: Edge, bearer: str) -> None:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{edge.url}/rtc", headers=headers) as client,
    ):
        await asyncio.wait_for(client.receive_bytes(), 5)


@pytest.mark.parametrize("is_secure", [False, True])
async def test_a_token_that_is_passed_on_cannot_be_read_on_the_way(
    is_secure: bool, authority: Authority, tmp_path: Path
) -> None:
    tls_dir = secret(authority, tmp_path / "tls")
    async with owner_running(tmp_path / "owner", tls_dir) as owner:
        async with tapped(owner.tls_port if is_secure else owner.port) as wire:
            plain = GatewayPeer(OWNER, f"http://127.0.0.1:{wire.port}")
            secure = GatewayPeer(OWNER, f"https://127.0.0.1:{wire.port}", checking(tls_dir))
            async with passing_on(tmp_path / "edge", secure if is_secure else plain) as edge:
                bearer = token()
                await joined(edge, bearer)
                assert len(wire.seen) > 500 and (bearer.encode() in wire.seen) is not is_secure
                before = len(wire.seen)
                client = api.LiveKitAPI(edge.url, API_KEY, API_SECRET)  # a REST call goes the same way
                await client.room.list_rooms(api.ListRoomsRequest())
                await client.aclose()  # type: ignore[no-untyped-call]
                assert len(wire.seen) > before and (b"twirp" in wire.seen[before:]) is not is_secure
        assert [hello.identity for hello in owner.plane.hellos] == ["alice"]


@pytest.mark.parametrize("fault", ["another authority", "the name of an SFU node"])
async def test_who_is_no_gateway_is_told_nothing(fault: str, authority: Authority, tmp_path: Path) -> None:
    """An SFU node that is taken over has a certificate of the same authority, and not of that name."""
    ours = secret(authority, tmp_path / "ours")
    if fault == "another authority":
        theirs = secret(Authority(tmp_path / "other"), tmp_path / "theirs")
    else:
        theirs = secret(authority, tmp_path / "theirs", NODE_TLS_NAME)
    async with owner_running(tmp_path / "owner", theirs) as owner, tapped(owner.tls_port) as wire:
        peer = GatewayPeer(OWNER, f"https://127.0.0.1:{wire.port}", checking(ours))
        async with passing_on(tmp_path / "edge", peer) as edge:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await joined(edge, token())
            assert refused.value.status == 503 and OWNER in edge.plane.doubted
        assert wire.seen and not owner.plane.hellos, "it was asked, and heard nothing"


def pod_of(number: int, url: str) -> dict[str, Any]:
    """As the API server shows a gateway that was made with a certificate."""
    return {
        "metadata": {"name": f"gw-{number}", "annotations": {ANNOTATION_GATEWAY_TLS: "true"}},
        "status": {
            "podIP": urlsplit(url).hostname,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


async def test_gateways_without_a_good_certificate_refuse_who_lives_elsewhere_and_take_no_room_for_lost(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls_dir = secret(authority, tmp_path / "tls")
    changes = {"gateway_tls_dir": tls_dir, "gateway_tls_port": PORT_GATEWAY_TLS}
    async with running_gateways(tmp_path, monkeypatch, 2, **changes) as pair:
        far, near = 1 - pair.owner("demo"), pair.owner("demo")
        for number, plane in enumerate(pair.planes):
            other = 1 - number
            plane.fleet.gateway_seen(f"gw-{other}", pod_of(other, pair.urls[other]))
        owner = pair.planes[far].fleet.gateways[f"gw-{near}"]
        assert owner.url.startswith("https://")
        await until(lambda: _is_alive(pair.planes[far], near), 15, "beats are heard")
        async with SignalClient(pair.urls[far], "ann"):
            room = pair.planes[near].directory.room(RoomId("demo"))
            assert room is not None and pair.planes[far].directory.room(RoomId("demo")) is None
            secret(Authority(tmp_path / "other"), tls_dir, serial=9)
            headers = {"Authorization": f"Bearer {token(sub='bob')}"}
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{pair.urls[far]}/rtc/validate", headers=headers) as answer:
                    told = (answer.status, answer.headers["X-Headwater-Reason"])
                    assert told == (503, Reason.OWNER_UNREACHABLE)
                async with session.get(f"{pair.urls[near]}/rtc/validate", headers=headers) as answer:
                    assert answer.status == 200, "at the room's own gateway all is as ever"
            await until(lambda: _is_alive(pair.planes[far], near), 15, "it is alive")
            assert pair.planes[near].directory.room(RoomId("demo")) is room
            assert pair.planes[far].directory.room(RoomId("demo")) is None


def _is_alive(plane: Plane, number: int) -> bool:
    return plane.fleet._links.verdict(GatewayId(f"gw-{number}")) is Verdict.ALIVE


async def shown(port: int) -> tuple[int, asyncio.StreamWriter]:
    """The serial of the certificate of a new connection, and the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opened = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=GATEWAY_TLS_NAME)
    _, writer = await asyncio.wait_for(opened, 5)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return Authority.serial_of(certificate), writer


async def test_a_renewed_certificate_is_shown_to_new_connections_and_a_bad_one_never(
    authority: Authority, tmp_path: Path
) -> None:
    tls_dir = secret(authority, tmp_path / "tls")
    async with owner_running(tmp_path / "owner", tls_dir) as owner:
        serial, old = await shown(owner.tls_port)
        assert serial == 1
        secret(authority, tls_dir, serial=2)
        serial, new = await shown(owner.tls_port)
        assert serial == 2 and not old.transport.is_closing()
        name = "headwater_gateway_certificate_expiry_timestamp_seconds"
        expires = owner.metrics.registry.get_sample_value(name)
        assert expires is not None and 29 * 86_400 < expires - time.time() < 31 * 86_400
        (tls_dir / "tls.key").write_text("no key")
        serial, last = await shown(owner.tls_port)
        assert serial == 2, "the one in use stays"
        for writer in (old, new, last):
            writer.close()


def test_a_certificate_that_other_gateways_would_not_take_is_told_of(
    authority: Authority, tmp_path: Path
) -> None:
    good = PeerCertificate(secret(authority, tmp_path / "good"))
    assert 29 * 86_400 < good.expires - time.time() < 31 * 86_400
    with capture_logs() as logs:
        assert PeerCertificate(secret(authority, tmp_path / "node", NODE_TLS_NAME)).expires == 0.0
        authority.issue(tmp_path / "strange", GATEWAY_TLS_NAME, serial=1)
        stranger = Authority(tmp_path / "stranger").directory / "ca.crt"
        (tmp_path / "strange" / "ca.crt").write_bytes(stranger.read_bytes())
        assert PeerCertificate(tmp_path / "strange").expires == 0.0
    assert [line["event"] for line in logs] == ["peer_tls.not_accepted"] * 2
    assert NODE_TLS_NAME not in logs[0]["reason"] and "gateway.headwater" in logs[0]["reason"]


def test_a_secret_that_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    assert checking(None) is None
    tls_dir = secret(authority, tmp_path / "tls")
    (tls_dir / "tls.crt").unlink()
    with pytest.raises(SettingsError, match=r"HEADWATER_GATEWAY_TLS_DIR=.*tls\.crt"):
        PeerCertificate(tls_dir)
    (tls_dir / "ca.crt").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"HEADWATER_GATEWAY_TLS_DIR=.*ca\.crt"):
        checking(tls_dir)


def test_gateways_reach_each_other_by_tls_where_both_have_it(authority: Authority, tmp_path: Path) -> None:
    context = checking(secret(authority, tmp_path / "tls"))
    ready = [{"type": "Ready", "status": "True"}]
    plain = {"metadata": {"name": "gw"}, "status": {"podIP": "10.0.0.7", "conditions": ready}}
    marked = {**plain, "metadata": {"name": "gw", "annotations": {ANNOTATION_GATEWAY_TLS: "true"}}}
    unlike = ((plain, None), (plain, context), (marked, None))  # as while it is rolled out
    for pod, ours in unlike:
        assert gateway_peer(pod, ours) == GatewayPeer(GatewayId("gw"), "http://10.0.0.7:7880")
    peer = gateway_peer(marked, context)
    assert peer is not None and (peer.url, peer.beats) == ("https://10.0.0.7:7881", "http://10.0.0.7:7880")
    assert dict(peer.checked) == {"ssl": context, "server_hostname": GATEWAY_TLS_NAME}
    assert takes_rooms(plain) and not takes_rooms({**plain, "status": {"podIP": "10.0.0.7"}})
    assert gateway_peer({**plain, "status": {"phase": "Failed", "podIP": "10.0.0.7"}}) is None
