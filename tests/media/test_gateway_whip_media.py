"""WHIP and WHEP with real media over a real node: aiortc, and GStreamer's stack by simple-whip-client."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from headwater_api import wellknown
from headwater_sandbox.demo.tokens import make_token
from headwater_sandbox.demo.watermark import read_mark
from support.deadline import until
from support.netns import need_root
from support.processes import loopback_address, running
from support.protocol_client import MarkedTrack
from support.whip_client import need_whip_client, whip_client

NODE_TOKEN, API_KEY, API_SECRET = "n" * 32, "devkey", "s" * 40
SDP = "application/sdp"
INSIDE = bool(os.environ.get("HEADWATER_TEST_INSIDE"))
NETWORK = (
    "ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up &&"
    ' ip addr add 10.9.0.1/24 dev v0 && ip addr add 10.9.0.2/24 dev v0 && exec "$@"'
)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a gateway over one node."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / API_KEY).write_text(API_SECRET)
    node_ip, gateway_ip = ("10.9.0.1", "10.9.0.2") if INSIDE else (loopback_address(), loopback_address())
    node_env = {
        wellknown.ENV_POD_NAME: "eu-1",
        wellknown.ENV_REGION: "eu",
        wellknown.ENV_CLUSTER: "demo",
        wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
    }
    gateway_env = {
        wellknown.ENV_POD_NAME: "gw-0",
        wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
        wellknown.ENV_API_KEYS_DIR: str(keys),
        "HEADWATER_STATIC_NODES": f"eu-1=eu@{node_ip}:{wellknown.PORT_NODE_GRPC}",
    }
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running("headwater_sfu", node_env, node_ip, tmp_path / "node.log"))
        log = tmp_path / "gateway.log"
        await stack.enter_async_context(running("headwater_gateway", gateway_env, gateway_ip, log))
        await until(lambda: '"node.up"' in log.read_text(), 20, "the gateway knows the node")
        yield f"http://{gateway_ip}:{wellknown.PORT_SIGNAL}"


def _token(identity: str) -> str:
    return make_token(API_KEY, API_SECRET, "demo", identity, time.time())


async def _negotiate(http: aiohttp.ClientSession, url: str, identity: str, pc: RTCPeerConnection) -> str:
    """Offer, answer; the resource's path."""
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"Authorization": f"Bearer {_token(identity)}", "Content-Type": SDP}
    async with http.post(url, data=pc.localDescription.sdp, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 201, text
        await pc.setRemoteDescription(RTCSessionDescription(text, "answer"))
        return answer.headers["Location"]


class Viewer:
    """A WHEP client that decodes what it gets."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection()
        self.sources: set[int] = set()
        self.pictures = self.sounds = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def _watch(self, kind: str, track: object) -> None:
        while True:
            frame = await track.recv()  # type: ignore[attr-defined]
            if kind == "audio":
                self.sounds += 1
                continue
            self.pictures += 1
            mark = read_mark(frame.to_ndarray(format="gray"))
            if mark is not None:
                self.sources.add(mark.source)

    @asynccontextmanager
    async def at(self, http: aiohttp.ClientSession, url: str) -> AsyncIterator["Viewer"]:
        for kind in ("audio", "video"):
            self.pc.addTransceiver(kind, direction="recvonly")
        try:
            await _negotiate(http, url, f"viewer-{id(self)}", self.pc)
            for transceiver in self.pc.getTransceivers():  # aiortc makes the tracks with the answer
                self._tasks.append(
                    asyncio.create_task(self._watch(transceiver.kind, transceiver.receiver.track))
                )
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.pc.close()


async def test_whip_to_whep_by_aiortc(gateway: str) -> None:
    sender = RTCPeerConnection()
    sender.addTrack(MarkedTrack(7))
    async with aiohttp.ClientSession() as http:
        try:
            resource = await _negotiate(http, f"{gateway}/whip/demo", "cam", sender)
            async with Viewer().at(http, f"{gateway}/whep/demo") as viewer:
                await until(lambda: viewer.sources == {7}, 30, "the viewer decodes marked frames")
                seen = viewer.pictures
                await until(lambda: viewer.pictures > seen + 15, 15, "and goes on")
                headers = {"Authorization": f"Bearer {_token('cam')}"}
                async with http.delete(gateway + resource, headers=headers) as answer:
                    assert answer.status == 200
                # The m-line stays; another publisher's picture comes on it.
                other = RTCPeerConnection()
                other.addTrack(MarkedTrack(9))
                try:
                    await _negotiate(http, f"{gateway}/whip/demo", "cam-2", other)
                    await until(lambda: 9 in viewer.sources, 30, "the next publisher's frames")
                finally:
                    await other.close()
        finally:
            await sender.close()


if INSIDE:  # in a network that the test below has made

    async def test_inside_simple_whip_client_is_seen_and_heard(gateway: str, tmp_path: Path) -> None:
        async with (
            aiohttp.ClientSession() as http,
            Viewer().at(http, f"{gateway}/whep/demo") as viewer,
            whip_client(f"{gateway}/whip/demo", _token("gst"), tmp_path) as client,
        ):
            try:
                await until(
                    lambda: viewer.pictures > 20 and viewer.sounds > 50, 30, "the viewer decodes both"
                )
            except AssertionError as error:
                seen = f"{viewer.pictures} pictures, {viewer.sounds} sounds"
                raise AssertionError(f"{error}: {seen}\n{client.printed()}") from None
            await client.interrupt()
            assert "[ERR]" not in client.printed(), client.printed()


def test_simple_whip_client_is_seen_and_heard(tmp_path: Path) -> None:
    """GStreamer 1.22 signs with RSA: what is decoded came by a finished handshake. It uses no loopback."""
    need_root()
    need_whip_client()
    again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'in'}"]
    inside = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", NETWORK, "sh", *again]
    done = subprocess.run(
        [*inside, __file__, "-k", "test_inside"],
        env={**os.environ, "HEADWATER_TEST_INSIDE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
