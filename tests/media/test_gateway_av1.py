"""AV1 to LiveKit's SDK and to a WHEP viewer, from Chromium with two layers in its stream and from the SDK."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from headwater_api import wellknown
from headwater_api.ids import GatewayId
from livekit import rtc
from playwright.async_api import Page
from support.chromium_engine import ANSWERED, PUBLISH, START_S, chromium, stats
from support.deadline import until
from support.gateway_edge import NODE_TOKEN, edge_settings, token
from support.gateways import gateway_running
from support.processes import loopback_address, running
from support.sdk_client import SdkClient, sdk_client

WIDTH = 640
LAYERS = [{"scalabilityMode": "L2T3_KEY", "maxBitrate": 900_000}]
WATCH = """async () => {
  window.pc = new RTCPeerConnection();
  pc.ontrack = (e) => {
    const el = document.createElement('video');
    el.autoplay = true; el.srcObject = new MediaStream([e.track]); document.body.append(el);
  };
  pc.addTransceiver('video', {direction: 'recvonly'});
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Of a gateway over one node."""
    env = {
        wellknown.ENV_POD_NAME: "eu-1",
        wellknown.ENV_REGION: "eu",
        wellknown.ENV_CLUSTER: "demo",
        wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
    }
    async with AsyncExitStack() as stack:
        node_ip, ip = loopback_address(), loopback_address()
        await stack.enter_async_context(running("headwater_sfu", env, node_ip, tmp_path / "node.log"))
        monkeypatch.setenv("HEADWATER_STATIC_NODES", f"eu-1=eu@{node_ip}:{wellknown.PORT_NODE_GRPC}")
        more = {"gateway": GatewayId("gw-0"), "bind_address": ip, "signal_port": wellknown.PORT_SIGNAL}
        plane = await stack.enter_async_context(gateway_running(edge_settings(tmp_path, **more)))
        await until(lambda: len(plane.directory.pool.views()) == 1, 20, "the node is known")
        yield f"{ip}:{wellknown.PORT_SIGNAL}"


def _token(identity: str) -> str:
    return token(sub=identity, video={"roomJoin": True, "room": "demo"})


async def _post(host: str, path: str, identity: str, page: Page, offer: str) -> str:
    headers = {"Authorization": f"Bearer {_token(identity)}", "Content-Type": "application/sdp"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://{host}/{path}/demo", data=offer, headers=headers) as response,
    ):
        answer = await response.text()
        assert response.status == 201, answer
    await page.evaluate(ANSWERED, answer)
    return answer


async def _film(stack: AsyncExitStack, client: SdkClient) -> None:
    """The SDK publishes AV1."""
    source = rtc.VideoSource(WIDTH, WIDTH * 9 // 16)
    track = rtc.LocalVideoTrack.create_video_track("film", source)
    options = rtc.TrackPublishOptions(
        source=rtc.TrackSource.SOURCE_CAMERA, video_codec=rtc.VideoCodec.AV1, simulcast=True
    )

    async def draw() -> None:
        size = WIDTH * WIDTH * 9 // 16
        for n in range(100_000):
            data = bytes([n % 200]) * size + bytes([128]) * (size // 2)
            source.capture_frame(rtc.VideoFrame(WIDTH, WIDTH * 9 // 16, rtc.VideoBufferType.I420, data))
            await asyncio.sleep(0.05)  # the camera's frame rate

    _spawn(stack, draw())
    await client.room.local_participant.publish_track(track, options)


def _spawn(stack: AsyncExitStack, work: object) -> None:
    task = asyncio.create_task(work)  # type: ignore[arg-type]

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


def _seen(stack: AsyncExitStack, client: SdkClient) -> dict[str, list[int]]:
    """Widths of the pictures that it decodes, by publisher."""
    seen: dict[str, list[int]] = {}

    async def watch(who: str, track: rtc.Track) -> None:
        stream = rtc.VideoStream(track)
        with contextlib.suppress(asyncio.CancelledError):
            async for event in stream:
                seen.setdefault(who, []).append(event.frame.width)
        await stream.aclose()

    def on_track(track: rtc.Track, _publication: object, participant: rtc.RemoteParticipant) -> None:
        if track.kind == rtc.TrackKind.KIND_VIDEO:
            _spawn(stack, watch(participant.identity, track))

    client.room.on("track_subscribed", on_track)
    return seen


async def test_av1_with_layers_reaches_the_sdk_whole_and_a_viewer_without_descriptors_in_part(
    host: str,
) -> None:
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium())
        bob = await stack.enter_async_context(sdk_client(f"ws://{host}", _token("bob")))
        seen = _seen(stack, bob)
        sender, viewer = await browser.new_page(), await browser.new_page()
        offer = await sender.evaluate(PUBLISH, {"codec": "AV1", "encodings": LAYERS, "width": WIDTH})
        answer = await _post(host, "whip", "cam", sender, offer)
        assert "dependency-descriptor" in answer and "a=extmap-allow-mixed" in answer
        await until(lambda: seen.get("cam", [])[-10:] == [WIDTH] * 10, START_S, "the SDK sees whole pictures")
        answer = await _post(host, "whep", "tv", viewer, await viewer.evaluate(WATCH))
        assert "dependency-descriptor" not in answer, "Chromium does not offer it of itself"

        async def watches() -> bool:
            found = await stats(viewer)
            return bool(found["decoded"] > 20 and found["width"] == WIDTH // 2)

        await until(watches, START_S, "the viewer decodes the lower layer", every_s=0.1)


async def test_av1_from_the_sdk_to_the_sdk(host: str) -> None:
    async with AsyncExitStack() as stack:
        ann, bob = [
            await stack.enter_async_context(sdk_client(f"ws://{host}", _token(who))) for who in ("ann", "bob")
        ]
        seen = _seen(stack, bob)
        await _film(stack, ann)
        await until(lambda: seen.get("ann", [])[-10:] == [WIDTH] * 10, START_S, "bob sees Ann's pictures")
