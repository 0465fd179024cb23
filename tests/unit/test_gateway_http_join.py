"""GET /rtc and /rtc/validate: verdicts, frames, limits."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from google.protobuf import json_format
from headwater_api.reasons import Reason
from headwater_gateway.signal.types import ClientHello, RegionSource, SignalChannel
from livekit.protocol import rtc
from support.deadline import until
from support.gateway_edge import Edge, FakePlane, full, running_edge, token

PING = rtc.SignalRequest(ping_req=rtc.Ping(timestamp=42)).SerializeToString()
LEAVE = rtc.SignalRequest(leave=rtc.LeaveRequest()).SerializeToString()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path, region_override=True, max_connections_per_address=8) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def _auth(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


async def _response(socket: aiohttp.ClientWebSocketResponse) -> rtc.SignalResponse:
    frame = await asyncio.wait_for(socket.receive(), 5)
    assert frame.type is WSMsgType.BINARY, frame
    return rtc.SignalResponse.FromString(frame.data)


@pytest.mark.parametrize("path", ["/rtc", "/rtc/"])
async def test_join_with_header_or_query(edge: Edge, client: aiohttp.ClientSession, path: str) -> None:
    async with client.ws_connect(edge.url + path, headers=_auth()) as socket:
        assert (await _response(socket)).join.participant.identity == "alice"
        await socket.send_bytes(PING)
        assert (await _response(socket)).pong_resp.last_ping_timestamp == 42
    async with client.ws_connect(f"{edge.url}{path}?access_token={token()}") as socket:
        assert (await _response(socket)).join.room.name == "demo"


async def test_hello_carries_the_query(edge: Edge, client: aiohttp.ClientSession) -> None:
    query = (
        "protocol=99&sdk=js&version=2.23.0&auto_subscribe=0&adaptive_stream=true&region=us&unknown=1"
        "&reconnect=1&sid=PA_9&reconnect_reason=2&os=linux"
    )
    async with client.ws_connect(f"{edge.url}/rtc?{query}", headers=_auth(sub="bob")) as socket:
        await _response(socket)
    hello = edge.plane.hellos[0]
    assert (hello.room, hello.identity, hello.protocol, hello.sdk) == ("demo", "bob", 99, "js")
    assert (hello.auto_subscribe, hello.adaptive_stream) == (False, True)
    assert (hello.region, hello.region_source) == ("us", RegionSource.OVERRIDE)
    assert (hello.reconnect, hello.reconnect_sid, hello.reconnect_reason) == (True, "PA_9", 2)
    assert hello.client_address == "127.0.0.1"


async def test_loopback_gets_the_default_region(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with running_edge(tmp_path, default_region="ap") as edge:
        async with client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket:
            await _response(socket)
        assert edge.plane.hellos[0].region == "ap"
        assert edge.plane.hellos[0].region_source is RegionSource.DEFAULT


async def test_region_of_a_public_address(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    trusted = (ipaddress.ip_network("127.0.0.0/8"),)
    async with running_edge(tmp_path, trusted_proxies=trusted) as edge:
        headers = {**_auth(), "X-Forwarded-For": "8.8.8.8, 133.11.0.1"}
        async with client.ws_connect(f"{edge.url}/rtc", headers=headers) as socket:
            await _response(socket)
        hello = edge.plane.hellos[0]
        assert (hello.region, hello.region_source, hello.country) == ("ap", RegionSource.GEOIP, "JP")
        assert hello.client_address == "133.11.0.1"


_REFUSALS = [
    ("", {}, 401, Reason.TOKEN_MISSING),
    ("", {"Authorization": "Bearer nonsense"}, 401, Reason.TOKEN_MALFORMED),
    ("", _auth(exp=1000), 401, Reason.TOKEN_EXPIRED),
    ("", _auth(video={"room": "demo"}), 403, Reason.GRANT_MISSING),
    ("", _auth(video={"roomJoin": True}), 400, Reason.ROOM_NAME_MISSING),
    ("room=other", _auth(), 403, Reason.GRANT_MISSING),
    ("", _auth(sub=""), 400, Reason.IDENTITY_MISSING),
    ("", _auth(video={"roomJoin": True, "room": "a\nb"}), 400, Reason.ROOM_NAME_INVALID),
    ("region=mars", _auth(), 400, Reason.REGION_UNKNOWN),
    ("protocol=-1", _auth(), 400, Reason.PARAMETER_INVALID),
    ("protocol=9999999", _auth(), 400, Reason.PARAMETER_INVALID),
    ("auto_subscribe=maybe", _auth(), 400, Reason.PARAMETER_INVALID),
    ("sid=TR_1", _auth(), 400, Reason.PARAMETER_INVALID),
    ("sdk=" + "x" * 300, _auth(), 400, Reason.PARAMETER_INVALID),
    ("", _auth(video={"roomJoin": True, "room": "full"}), 503, Reason.NO_CAPACITY),
]


@pytest.mark.parametrize("case", _REFUSALS, ids=lambda case: f"{case[2]}-{case[3]}")
async def test_refusals_are_the_same_before_the_upgrade_and_in_validate(
    edge: Edge,
    client: aiohttp.ClientSession,
    case: tuple[str, dict[str, str], int, Reason],
) -> None:
    query, headers, status, reason = case
    edge.plane.refused["full"] = full()
    async with client.get(f"{edge.url}/rtc/validate?{query}", headers=headers) as response:
        assert (response.status, response.headers["X-Headwater-Reason"]) == (status, reason)
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert len(await response.text()) > 10
    with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
        await client.ws_connect(f"{edge.url}/rtc?{query}", headers=headers)
    assert failed.value.status == status
    assert not edge.plane.hellos


async def test_unknown_region_names_the_valid_ones(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{edge.url}/rtc/validate?region=mars", headers=_auth()) as response:
        assert "ap, eu, us" in await response.text()


async def test_override_needs_permission(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with (
        running_edge(tmp_path) as edge,
        client.get(f"{edge.url}/rtc/validate?region=us", headers=_auth()) as response,
    ):
        assert response.status == 400
        assert response.headers["X-Headwater-Reason"] == Reason.PARAMETER_INVALID


async def test_validate_says_success(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{edge.url}/rtc/validate?access_token={token()}") as response:
        assert (response.status, await response.text()) == (200, "success")


@pytest.mark.parametrize("path", ["/rtc/v1", "/rtc/v1/validate", "/rtc/anything"])
async def test_newer_protocol_paths_are_404_for_each_origin(
    edge: Edge, client: aiohttp.ClientSession, path: str
) -> None:
    async with client.get(edge.url + path, headers=_auth()) as response:
        assert response.status == 404
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_preflight_allows_the_authorization_header(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.options(f"{edge.url}/rtc/validate") as response:
        assert response.status == 204
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_long_request_lines_are_taken(edge: Edge, client: aiohttp.ClientSession) -> None:
    text = token(metadata="m" * 20_000)
    async with client.get(f"{edge.url}/rtc/validate?access_token={text}") as response:
        assert response.status == 200


async def test_plain_get_of_rtc_asks_for_a_websocket(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{edge.url}/rtc", headers=_auth()) as response:
        assert (response.status, response.headers["X-Headwater-Reason"]) == (426, Reason.NOT_A_WEBSOCKET)


async def test_json_is_answered_in_json(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket:
        await _response(socket)
        await socket.send_str(json.dumps({"pingReq": {"timestamp": "7"}, "futureField": 1}))
        frame = await asyncio.wait_for(socket.receive(), 5)
        assert frame.type is WSMsgType.TEXT
        answer = json_format.Parse(frame.data, rtc.SignalResponse())
        assert answer.pong_resp.last_ping_timestamp == 7
        await socket.send_bytes(PING)
        assert (await _response(socket)).pong_resp.last_ping_timestamp == 42


async def test_unknown_messages_are_ignored(edge: Edge, client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket:
        await _response(socket)
        await socket.send_bytes(bytes.fromhex("fa7f03010203"))  # field 2047, length-delimited
        await socket.send_bytes(b"")
        await socket.send_bytes(PING)
        assert (await _response(socket)).pong_resp.last_ping_timestamp == 42


@pytest.mark.parametrize("frame", [b"\xff\xff\xff", "not json", "[1]", '{"offer": 3}', "[" * 5000])
async def test_malformed_frame_is_answered_and_forgiven(
    edge: Edge, client: aiohttp.ClientSession, frame: bytes | str
) -> None:
    async with client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket:
        await _response(socket)
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
        raw = await asyncio.wait_for(socket.receive(), 5)
        assert Reason.FRAME_MALFORMED in str(raw.data)
        await socket.send_bytes(PING)
        assert (await _response(socket)).pong_resp.last_ping_timestamp == 42


async def test_flood_of_malformed_frames_ends_only_that_session(
    edge: Edge, client: aiohttp.ClientSession
) -> None:
    async with (
        client.ws_connect(f"{edge.url}/rtc", headers=_auth(sub="good")) as good,
        client.ws_connect(f"{edge.url}/rtc", headers=_auth(sub="bad")) as bad,
    ):
        await _response(good)
        await _response(bad)
        for _ in range(11):
            await bad.send_bytes(b"\xff\xff\xff")
        kinds = [(await _response(bad)).WhichOneof("message") for _ in range(11)]
        assert kinds == ["request_response"] * 10 + ["leave"]
        end = await asyncio.wait_for(bad.receive(), 5)
        assert (end.type, bad.close_code) == (WSMsgType.CLOSE, 1008)
        await good.send_bytes(PING)
        assert (await _response(good)).pong_resp.last_ping_timestamp == 42


async def test_oversize_frame_closes_with_1009(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with (
        running_edge(tmp_path, max_frame_bytes=65_536) as edge,
        client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket,
        client.ws_connect(f"{edge.url}/rtc", headers=_auth(sub="other")) as other,
    ):
        await _response(socket)
        await _response(other)
        await socket.send_bytes(b"\0" * 70_000)
        await asyncio.wait_for(socket.receive(), 5)
        assert socket.close_code == 1009
        await other.send_bytes(PING)
        assert (await _response(other)).pong_resp.last_ping_timestamp == 42


async def test_connections_of_one_address_are_limited_and_given_back(
    edge: Edge, client: aiohttp.ClientSession
) -> None:
    sockets = [await client.ws_connect(f"{edge.url}/rtc", headers=_auth()) for _ in range(8)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
        await client.ws_connect(f"{edge.url}/rtc", headers=_auth())
    assert failed.value.status == 429
    for socket in sockets:
        await socket.close()

    async def joins_again() -> bool:
        try:
            async with client.ws_connect(f"{edge.url}/rtc", headers=_auth()):
                return True
        except aiohttp.WSServerHandshakeError:
            return False

    await until(joins_again, 15, "a place is free again")


async def test_session_error_closes_with_1011_and_is_counted(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async def broken(hello: ClientHello, channel: SignalChannel) -> None:
        raise RuntimeError("boom")

    async with (
        running_edge(tmp_path, FakePlane(session=broken)) as edge,
        client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket,
    ):
        await asyncio.wait_for(socket.receive(), 5)
        assert socket.close_code == 1011
        assert edge.metrics.registry.get_sample_value("headwater_gateway_session_errors_total") == 1


async def test_client_that_leaves_ends_its_session(edge: Edge, client: aiohttp.ClientSession) -> None:
    gauge = "headwater_gateway_sessions"
    socket = await client.ws_connect(f"{edge.url}/rtc", headers=_auth())
    await _response(socket)
    assert edge.metrics.registry.get_sample_value(gauge) == 1
    await socket.close()
    await until(lambda: edge.metrics.registry.get_sample_value(gauge) == 0, 15, "the session ended")


async def test_shutdown_refuses_new_joins(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    plane = FakePlane()
    async with running_edge(tmp_path, plane) as edge, client.get(f"{edge.admin_url}/readyz") as response:
        assert response.status == 200
    assert plane.closed


async def test_session_may_close_while_it_waits_for_the_client(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async def farewell(hello: ClientHello, channel: SignalChannel) -> None:
        waiting = asyncio.create_task(channel.recv())
        await channel.send(rtc.SignalResponse(leave=rtc.LeaveRequest()))
        await channel.close(1001, "moved")
        assert await asyncio.wait_for(waiting, 5) is None

    async with (
        running_edge(tmp_path, FakePlane(session=farewell)) as edge,
        client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket,
    ):
        assert (await _response(socket)).WhichOneof("message") == "leave"
        await asyncio.wait_for(socket.receive(), 5)
        assert socket.close_code == 1001
    assert edge.metrics.registry.get_sample_value("headwater_gateway_session_errors_total") == 0


async def test_clients_get_a_renewed_token(
    tmp_path: Path, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater_gateway.app.RENEW_SECONDS", 0.05)
    async with (
        running_edge(tmp_path) as edge,
        client.ws_connect(f"{edge.url}/rtc", headers=_auth()) as socket,
    ):
        assert (await _response(socket)).WhichOneof("message") == "join"
        renewed = (await _response(socket)).refresh_token
        async with client.get(f"{edge.url}/rtc/validate?access_token={renewed}") as response:
            assert response.status == 200
