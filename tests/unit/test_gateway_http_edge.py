"""The admin port, the page, proxies in front, and gateways that pass sessions on."""

import asyncio
import ipaddress
import json
import socket
import struct
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headwater_api.ids import GatewayId
from headwater_api.reasons import Reason
from headwater_gateway.http.admission import HEADER_CLIENT, HEADER_VOUCHER
from headwater_gateway.http.doorkeeper import SIGNATURE_V2, HeaderError, parse_header
from headwater_gateway.http.serve import ListenError
from headwater_gateway.http.site import content_policy
from headwater_gateway.settings import SettingsError, from_environment
from headwater_gateway.signal.types import GatewayPeer, JoinRefused
from livekit.protocol import rtc
from support.gateway_edge import FakePlane, running_edge, token

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
PING = rtc.SignalRequest(ping_req=rtc.Ping(timestamp=42)).SerializeToString()


def _auth(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


async def _get(url: str, **more: object) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(url, **more) as response:  # type: ignore[arg-type]
        return response.status, await response.text(), dict(response.headers)


async def test_admin_port(tmp_path: Path) -> None:
    plane = FakePlane(not_ready="no SFUCluster seen yet")
    async with running_edge(tmp_path, plane) as edge:
        assert (await _get(f"{edge.admin_url}/healthz"))[:2] == (200, "ok")
        assert (await _get(f"{edge.admin_url}/readyz"))[:2] == (503, "no SFUCluster seen yet")
        plane.not_ready = ""
        assert (await _get(f"{edge.admin_url}/readyz"))[0] == 200
        await _get(f"{edge.url}/rtc/validate")
        status, text, _ = await _get(f"{edge.admin_url}/metrics")
        assert status == 200
        assert 'headwater_gateway_joins_total{endpoint="validate",reason="TokenMissing"} 1.0' in text


async def test_page_and_its_policy(tmp_path: Path) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (web / "index.html").write_text("<h1>hi</h1>")
    (web / "app.js").write_text("1")
    (tmp_path / "keys.js").write_text("secret")
    async with running_edge(tmp_path, web_dir=web) as edge:
        status, text, headers = await _get(edge.url + "/")
        assert (status, text) == (200, "<h1>hi</h1>")
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert f"ws://{edge.host}:{edge.port}" in policy
        assert (await _get(edge.url + "/app.js"))[0] == 200
        for path in ("/none.js", "/..%2fkeys.js", "/%2e%2e/keys.js", "/app.txt", "/.env"):
            assert (await _get(edge.url + path))[0] == 404
        status, text, _ = await _get(edge.url + "/vendor/livekit-client.js")
        assert (status, "not installed" in text) == (404, True)
        vendor = web / "node_modules/livekit-client/dist"
        vendor.mkdir(parents=True)
        (vendor / "livekit-client.umd.js").write_text("2")
        assert (await _get(edge.url + "/vendor/livekit-client.js"))[:2] == (200, "2")


@pytest.mark.parametrize("host", ["evil; script-src *", "a b", "x'"])
def test_policy_takes_no_text_from_a_made_up_host(host: str) -> None:
    assert host not in content_policy(host)


async def test_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}"):
            async with running_edge(tmp_path, signal_port=port):
                pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"HEADWATER_API_KEYS_DIR": ""}, "HEADWATER_API_KEYS_DIR"),
        ({"HEADWATER_API_KEYS_DIR": "/none"}, "HEADWATER_API_KEYS_DIR"),
        ({"HEADWATER_NODE_TOKEN": ""}, "HEADWATER_NODE_TOKEN"),
        ({"POD_IP": "here"}, "POD_IP"),
        ({"HEADWATER_SIGNAL_PORT": "99999"}, "HEADWATER_SIGNAL_PORT"),
        ({"HEADWATER_SIGNAL_PORT": "-1"}, "HEADWATER_SIGNAL_PORT"),
        ({"HEADWATER_REGION_OVERRIDE": "yes"}, "HEADWATER_REGION_OVERRIDE"),
        ({"HEADWATER_GEOIP_DATABASE": "/none.mmdb"}, "HEADWATER_GEOIP_DATABASE"),
        ({"HEADWATER_TRUSTED_PROXIES": "10.0.0.0/8,here"}, "HEADWATER_TRUSTED_PROXIES"),
        ({"HEADWATER_LOG_LEVEL": "loud"}, "HEADWATER_LOG_LEVEL"),
    ],
)
def test_bad_settings_name_their_variable(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    good = {"HEADWATER_API_KEYS_DIR": str(tmp_path), "HEADWATER_NODE_TOKEN": "t0ps3cret"}
    assert "t0ps3cret" not in repr(from_environment(good))
    with pytest.raises(SettingsError, match=says):
        from_environment({**good, **changes})


def _v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE_V2 + struct.pack("!BBH", 0x20 | command, family << 4 | 1, len(addresses)) + addresses


_TCP4 = socket.inet_aton("8.8.8.8") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 1, 2)
_TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack("!HH", 1, 2)


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 8.8.8.8 10.0.0.1 1 2\r\n", "8.8.8.8"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", ""),
        (_v2(1, 1, _TCP4), "8.8.8.8"),
        (_v2(1, 1, _TCP4 + b"tlv-data"), "8.8.8.8"),
        (_v2(1, 2, _TCP6), "2001:db8::1"),
        (_v2(0, 0, b""), ""),
    ],
)
def test_proxy_headers(header: bytes, source: str) -> None:
    assert parse_header(header + b"GET / HTTP/1.1\r\n") == (source, len(header))
    for cut in range(len(header)):
        assert parse_header(header[:cut]) is None


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 8.8.8.8\r\n",
        b"PROXY TCP4 x y 1 2\r\n",
        b"PROXY \xff\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE_V2 + b"\x31\x11\x00\x00",
        _v2(1, 1, b"short"),
        SIGNATURE_V2 + b"\x21\x11\xff\xff",
    ],
)
def test_bad_proxy_headers(header: bytes) -> None:
    with pytest.raises(HeaderError):
        parse_header(header)


async def _raw(host: str, port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def _validate_request() -> bytes:
    return (
        f"GET /rtc/validate?access_token={token()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ).encode()


async def test_proxy_protocol_gives_the_client_address(tmp_path: Path) -> None:
    seen: list[str] = []

    class Recording(FakePlane):
        async def admit(self, hello: object) -> None:
            seen.append(hello.client_address)  # type: ignore[attr-defined]

    async with running_edge(tmp_path, Recording(), trusted_proxies=LOOPBACK, proxy_protocol=True) as edge:
        for header in (b"PROXY TCP4 8.8.8.8 10.0.0.1 1 2\r\n", _v2(1, 1, _TCP4)):
            assert b"200 OK" in await _raw(edge.host, edge.port, header + _validate_request())
        assert seen == ["8.8.8.8", "8.8.8.8"]
        assert await _raw(edge.host, edge.port, _validate_request()) == b""
        assert len(seen) == 2


async def test_proxy_header_of_a_stranger_is_not_read(tmp_path: Path) -> None:
    trusted = (ipaddress.ip_network("10.0.0.0/8"),)
    async with running_edge(tmp_path, trusted_proxies=trusted, proxy_protocol=True) as edge:
        assert b"200 OK" in await _raw(edge.host, edge.port, _validate_request())
        answer = await _raw(
            edge.host, edge.port, b"PROXY TCP4 8.8.8.8 10.0.0.1 1 2\r\n" + _validate_request()
        )
        assert b"400" in answer.split(b"\r\n")[0]


async def test_session_runs_on_the_gateway_that_owns_the_room(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with running_edge(tmp_path / "a", region_override=True) as owner:
        peer = GatewayPeer(GatewayId("owner"), owner.url)
        plane = FakePlane(owners={"demo": peer})
        async with (
            running_edge(tmp_path / "b", plane, region_override=True, trusted_proxies=LOOPBACK) as other,
            aiohttp.ClientSession() as session,
        ):
            headers = {**_auth(), "X-Forwarded-For": "133.11.0.1"}
            url = f"{other.url}/rtc?sdk=js&region=us"
            async with session.ws_connect(url, headers=headers) as ws:
                await ws.receive()
                await ws.send_bytes(PING)
                answer = rtc.SignalResponse.FromString((await ws.receive()).data)
                assert answer.pong_resp.last_ping_timestamp == 42
                await ws.send_str(json.dumps({"leave": {}}))
                await ws.receive()
                await asyncio.wait_for(ws.receive(), 5)
            assert ws.closed
        assert not plane.hellos
        hello = owner.plane.hellos[0]
        assert (hello.client_address, hello.region, hello.sdk) == ("133.11.0.1", "us", "js")


async def test_owner_refusal_reaches_the_client(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with running_edge(tmp_path / "a") as owner:
        owner.plane.refused["demo"] = JoinRefused(404, Reason.ROOM_NOT_FOUND, "no such room here")
        plane = FakePlane(owners={"demo": GatewayPeer(GatewayId("owner"), owner.url)})
        async with running_edge(tmp_path / "b", plane) as other, aiohttp.ClientSession() as session:
            status, text, headers = await _get(f"{other.url}/rtc/validate", headers=_auth())
            assert (status, text) == (404, "no such room here")
            assert headers["X-Headwater-Reason"] == Reason.ROOM_NOT_FOUND
            with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
                await session.ws_connect(f"{other.url}/rtc", headers=_auth())
            assert failed.value.status == 404


async def test_unreachable_owner_is_503(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        plane = FakePlane(owners={"demo": GatewayPeer(GatewayId("gone"), url)})
        async with running_edge(tmp_path, plane) as edge:
            status, _, headers = await _get(f"{edge.url}/rtc/validate", headers=_auth())
            assert (status, headers["X-Headwater-Reason"]) == (503, Reason.OWNER_UNREACHABLE)


async def test_made_up_voucher_is_not_believed(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge, aiohttp.ClientSession() as session:
        headers = {**_auth(), HEADER_CLIENT: "8.8.8.8", HEADER_VOUCHER: "0" * 64}
        async with session.ws_connect(f"{edge.url}/rtc", headers=headers) as ws:
            await ws.receive()
        assert edge.plane.hellos[0].client_address == "127.0.0.1"


async def test_half_a_request_does_not_hold_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater_gateway.http.doorkeeper._FIRST_RESPONSE_SECONDS", 0.2)
    async with (
        running_edge(tmp_path) as edge,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{edge.url}/rtc", headers=_auth()) as ws,
    ):
        await ws.receive()
        assert await _raw(edge.host, edge.port, b"GET /rtc HTTP/1.1\r\nHost: x\r\n") == b""
        await ws.send_bytes(PING)  # a session outlives the deadline of its connection
        assert (await asyncio.wait_for(ws.receive(), 5)).type is aiohttp.WSMsgType.BINARY


async def test_without_api_keys_it_is_not_ready(tmp_path: Path) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    async with running_edge(tmp_path, api_keys_dir=empty) as edge:
        status, text, _ = await _get(f"{edge.admin_url}/readyz")
        assert (status, "no usable API key" in text) == (503, True)
        assert (await _get(f"{edge.admin_url}/healthz"))[0] == 200
