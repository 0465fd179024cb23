"""Bad input at a whole gateway: the client gets a clear error, the log a reason, nobody else notices."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import WSMsgType
from headwater_gateway.app import run
from headwater_gateway.plane import ENV_STATIC_NODES, open_plane
from livekit.protocol import rtc
from structlog.testing import capture_logs
from support.deadline import until
from support.fake_channel import FINGERPRINT, publisher_offer
from support.fake_node import FakeNode, serving
from support.gateway_edge import edge_settings, token

Logs = Sequence[Any]


class Client:
    """A WebSocket that keeps what it was told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.messages: list[rtc.SignalResponse] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (frame := await self.socket.receive()).type is WSMsgType.BINARY:
            self.messages.append(rtc.SignalResponse.FromString(frame.data))

    async def say(self, **fields: Any) -> None:
        await self.socket.send_bytes(rtc.SignalRequest(**fields).SerializeToString())

    def kinds(self) -> list[str]:
        return [str(m.WhichOneof("message")) for m in self.messages]

    async def wait(self, kind: str) -> Any:
        """The first message of a kind."""
        await until(lambda: kind in self.kinds(), 5, f"{kind} comes, got {self.kinds()}", 0.01)
        return next(getattr(m, kind) for m in self.messages if m.WhichOneof("message") == kind)

    async def is_served(self) -> None:
        """It is answered, and was told of nothing but other participants' coming and going."""
        pongs = self.kinds().count("pong_resp")
        await self.say(ping_req=rtc.Ping(timestamp=1))
        await until(lambda: self.kinds().count("pong_resp") > pongs, 5, "the other session is served", 0.01)
        known = {"join", "offer", "update", "pong", "pong_resp"}
        assert set(self.kinds()) <= known and not self.socket.closed


class Gateway:
    """A gateway over one node without media."""

    def __init__(self, url: str, http: aiohttp.ClientSession, node: FakeNode) -> None:
        self.url, self.http, self.node = url, http, node

    @asynccontextmanager
    async def client(self, identity: str) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {token(sub=identity)}"}
        async with self.http.ws_connect(f"{self.url}/rtc", headers=headers) as socket:
            client = Client(socket)
            try:
                await client.wait("offer")
                yield client
            finally:
                client.reading.cancel()
                await asyncio.gather(client.reading, return_exceptions=True)


@asynccontextmanager
async def running(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> AsyncIterator[Gateway]:
    structlog.reset_defaults()
    async with AsyncExitStack() as stack:
        node = FakeNode("eu-1", "eu")
        await stack.enter_async_context(serving(node))
        patch.setenv(ENV_STATIC_NODES, f"eu-1=eu@{node.address}")
        stop, ports = asyncio.Event(), dict[str, int]()
        settings = edge_settings(folder, shutdown_seconds=1.0, **changes)
        task = asyncio.create_task(
            run(settings, open_plane, stop, lambda name, port: ports.update({name: port}))
        )
        try:
            await until(lambda: task.done() or "signal" in ports, 10, "the gateway listens", 0.01)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            gateway = Gateway(f"http://{settings.bind_address}:{ports['signal']}", http, node)
            await until(lambda: node.watchers, 5, "its node is watched", 0.01)
            yield gateway
        finally:
            stop.set()
            await asyncio.wait_for(task, 15)


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    async with running(tmp_path, monkeypatch, max_frame_bytes=65_536) as gateway:
        yield gateway


def reasons(logs: Logs) -> set[str]:
    return {str(line["reason"]) for line in logs if "reason" in line}


JOINS = {"roomJoin": True, "room": "demo"}
REFUSED = [
    ("garbage", 401, "TokenMalformed", "not a JWT"),
    (token()[:-4] + "AAAA", 401, "TokenSignatureInvalid", "not signed"),
    (token(exp=1000), 401, "TokenExpired", "expired"),
    (token(video={"room": "demo"}), 403, "GrantMissing", "roomJoin"),
    (token(iss="stranger"), 401, "ApiKeyUnknown", "not an API key"),
    (token(sub=""), 400, "IdentityMissing", "identity"),
    (token(video={**JOINS, "room": "a\nb"}), 400, "RoomNameInvalid", "room"),
]


@pytest.mark.parametrize(("bad", "status", "reason", "words"), REFUSED, ids=[c[2] for c in REFUSED])
async def test_a_join_is_refused_with_its_reason(
    gateway: Gateway, bad: str, status: int, reason: str, words: str
) -> None:
    headers = {"Authorization": f"Bearer {bad}"}
    async with gateway.client("witness") as witness:
        with capture_logs() as logs:
            async with gateway.http.get(f"{gateway.url}/rtc/validate", headers=headers) as response:
                text = await response.text()
                assert (response.status, response.headers["X-Headwater-Reason"]) == (status, reason)
            with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
                await gateway.http.ws_connect(f"{gateway.url}/rtc", headers=headers)
        assert (failed.value.status, words in text) == (status, True)
        refusals = [(line["endpoint"], line["reason"]) for line in logs if line["event"] == "join refused"]
        assert refusals == [("validate", reason), ("rtc", reason)]
        assert bad not in str(logs)
        await witness.is_served()
        told = {p.identity for m in witness.messages for p in m.update.participants}
        assert told <= {"witness"}, "nobody else came; its own row may have come by now"


async def _refused_twice(gateway: Gateway, status: int, reason: str) -> str:
    """Wait for /rtc/validate to refuse so; /rtc does too. The words."""
    headers = {"Authorization": f"Bearer {token()}"}

    async def verdict() -> str:
        async with gateway.http.get(f"{gateway.url}/rtc/validate", headers=headers) as response:
            same = (response.status, response.headers.get("X-Headwater-Reason")) == (status, reason)
            return await response.text() if same else ""

    words = str(await until(verdict, 5, f"{reason} is said", 0.02))
    with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
        await gateway.http.ws_connect(f"{gateway.url}/rtc", headers=headers)
    assert failed.value.status == status
    return words


async def test_an_unknown_room_without_auto_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, auto_create_rooms=False) as gateway:
        with capture_logs() as logs:
            words = await _refused_twice(gateway, 404, "RoomNotFound")
        assert words.startswith("requested room does not exist")
        assert "RoomNotFound" in reasons(logs)


async def test_no_node_that_can_take_anybody(gateway: Gateway) -> None:
    gateway.node.report.draining = True
    gateway.node.push()
    with capture_logs() as logs:
        assert "1 draining" in await _refused_twice(gateway, 503, "NoCapacity")
    assert "NoCapacity" in reasons(logs)


async def test_malformed_and_unknown_frames_concern_their_sender_only(gateway: Gateway) -> None:
    async with gateway.client("witness") as witness, gateway.client("eve") as eve:
        with capture_logs() as logs:
            await eve.socket.send_bytes(b"\xff\xff\xff")
            refused = await eve.wait("request_response")
            assert "FrameMalformed" in refused.message
            await eve.socket.send_bytes(bytes.fromhex("fa7f03010203"))  # field 2047: of a newer client
            await eve.say(ping_req=rtc.Ping(timestamp=2))
            await eve.wait("pong_resp")
        assert {"FrameMalformed", "MessageUnknown"} <= reasons(logs)
        assert not eve.socket.closed
        await witness.is_served()


async def test_an_oversize_frame_ends_its_own_session_only(gateway: Gateway) -> None:
    async with gateway.client("witness") as witness, gateway.client("eve") as eve:
        with capture_logs() as logs:
            await eve.socket.send_bytes(b"\0" * 70_000)
            await until(lambda: eve.socket.closed, 5, "it is closed", 0.01)
            await until(lambda: "FrameTooLarge" in reasons(logs), 5, "the log says why", 0.01)
        assert eve.socket.close_code == 1009
        await witness.is_served()


ABSURD = {
    "empty": "",
    "no sdp": "not sdp at all",
    "port": publisher_offer(("video", "cam")).replace("m=video 9 ", "m=video 99999999 "),
    "payload type": publisher_offer(("video", "cam")).replace("96", "4096"),
    "many m-lines": publisher_offer(*(("audio", f"a{n}") for n in range(150))),
    "long line": publisher_offer(("audio", "mic")) + "a=x:" + "x" * 40_000 + "\r\n",
    "rids": publisher_offer(("video", "cam")) + "".join(f"a=rid:r{n} send\r\n" for n in range(300)),
    "ssrc": publisher_offer(("audio", "mic")) + "a=ssrc:99999999999 cname:x\r\n",
    "fingerprint": publisher_offer(("audio", "mic")).replace(FINGERPRINT, "sha-256 ZZ:ZZ"),
}


@pytest.mark.parametrize("sdp", ABSURD.values(), ids=ABSURD)
async def test_absurd_descriptions_are_answered_and_logged(gateway: Gateway, sdp: str) -> None:
    async with gateway.client("witness") as witness, gateway.client("eve") as eve:
        with capture_logs() as logs:
            await eve.say(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=1))
            await eve.say(ping_req=rtc.Ping(timestamp=2))
            await eve.wait("pong_resp")
        refusals = [m.request_response for m in eve.messages if m.HasField("request_response")]
        assert refusals or "answer" in eve.kinds()
        if refusals:
            assert refusals[0].reason == rtc.RequestResponse.INVALID_REQUEST and refusals[0].message
            assert "SdpInvalid" in reasons(logs)
        assert len(str(logs)) < 20_000
        await witness.is_served()


async def test_a_flood_is_read_slowly_and_others_are_served(gateway: Gateway) -> None:
    async with gateway.client("witness") as witness, gateway.client("eve") as eve:
        mute = rtc.SignalRequest(mute=rtc.MuteTrackRequest(sid="TR_none", muted=True)).SerializeToString()
        for _ in range(1500):
            await eve.socket.send_bytes(mute)
        await eve.say(ping_req=rtc.Ping(timestamp=2))
        for _ in range(3):
            await witness.is_served()
        assert "pong_resp" not in eve.kinds(), "its flood is worked off at its own cost"
        assert not eve.socket.closed
