"""Chromium against the engine: simulcast, layer switches, RTX under loss, the same over a relay link."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp import PublisherNegotiation, SendTrack, SubscriberNegotiation
from playwright.async_api import Browser, Page, async_playwright
from support.deadline import until
from support.native_media import LossyDoor, Node, closing, free_port, link, remote_track

pytestmark = pytest.mark.timeout(120)

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]
PUBLISH = """async () => {
  const canvas = document.createElement('canvas');
  canvas.width = 1280; canvas.height = 720;
  const c = canvas.getContext('2d');
  let n = 0;
  setInterval(() => {
    c.fillStyle = '#3060c0'; c.fillRect(0, 0, 1280, 720);
    c.fillStyle = '#ffffff'; c.fillRect((n * 8) % 1200, 300, 80, 80);
    c.font = '80px sans-serif'; c.fillText(String(n++), 40, 120);
  }, 50);
  const video = canvas.captureStream(20).getVideoTracks()[0];
  const context = new AudioContext();
  const tone = context.createOscillator(), sink = context.createMediaStreamDestination();
  tone.connect(sink); tone.start();
  window.pc = new RTCPeerConnection();
  pc.addTransceiver(sink.stream.getAudioTracks()[0], {direction: 'sendonly'});
  pc.addTransceiver(video, {direction: 'sendonly', sendEncodings: [
    {rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150000},
    {rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500000},
    {rid: 'f', maxBitrate: 1500000}]});
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""
ANSWERED = "(sdp) => pc.setRemoteDescription({type: 'answer', sdp})"
SUBSCRIBE = """async (sdp) => {
  if (!window.pc) {
    window.pc = new RTCPeerConnection();
    pc.ontrack = (e) => {
      const el = document.createElement(e.track.kind);
      el.autoplay = true; el.srcObject = new MediaStream([e.track]); document.body.append(el);
    };
  }
  await pc.setRemoteDescription({type: 'offer', sdp});
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""
STATS = """async () => {
  const all = [...(await pc.getStats()).values()].filter((s) => s.type === 'inbound-rtp');
  const v = all.find((s) => s.kind === 'video') || {}, a = all.find((s) => s.kind === 'audio') || {};
  return {width: v.frameWidth || 0, decoded: v.framesDecoded || 0, keys: v.keyFramesDecoded || 0,
          lost: v.packetsLost || 0, frozen_s: v.totalFreezesDuration || 0, freezes: v.freezeCount || 0,
          rtx: v.retransmittedPacketsReceived || 0,
          nacks: v.nackCount || 0, audio: a.packetsReceived || 0, energy: a.totalAudioEnergy || 0};
}"""
# The bandwidth estimate of a busy machine rises slowly, and the top layer starts last.
START_S = 40
_ssrcs = itertools.count(0x2000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", headless=True, args=SWITCHES
        )
        try:
            yield browser
        finally:
            await browser.close()


async def publish(page: Page, node: Node) -> list[node_pb2.ReceiveSection]:
    offer = await page.evaluate(PUBLISH)
    local = node.local()
    answer = PublisherNegotiation().answer(offer, local)
    node.create("chrome/pub", local, answer.remote_fingerprint)
    names = {node_pb2.KIND_AUDIO: "TR_a", node_pb2.KIND_VIDEO: "TR_v"}
    sections = [s.receive_section(names[s.kind]) for s in answer.sections]
    node.do(configure_receive=node_pb2.ConfigureReceive(transport_id="chrome/pub", sections=sections))
    await page.evaluate(ANSWERED, answer.sdp)
    return sections


async def subscribe(
    page: Page, node: Node, sections: list[node_pb2.ReceiveSection], rtx: bool = True
) -> None:
    negotiation, local = SubscriberNegotiation(), node.local()
    for section in sections:
        video = section.kind == node_pb2.KIND_VIDEO
        negotiation.add_track(
            SendTrack(
                track_sid=section.track_id,
                participant_sid="PA_x",
                kind=section.kind,
                codec=section.codecs[0],
                ssrc=next(_ssrcs),
                rtx_ssrc=next(_ssrcs) if video and rtx else 0,
            )
        )
    node.create("view/sub", local)
    offer_id, offer = negotiation.offer(local)
    answer = negotiation.apply_answer(await page.evaluate(SUBSCRIBE, offer), offer_id)
    for accepted in answer.sections:
        accepted.max_spatial = 2
    node.do(
        set_remote=node_pb2.SetRemote(transport_id="view/sub", remote_fingerprint=answer.remote_fingerprint)
    )
    node.do(configure_send=node_pb2.ConfigureSend(transport_id="view/sub", sections=answer.sections))


async def stats(page: Page) -> dict[str, Any]:
    result: dict[str, Any] = await page.evaluate(STATS)
    return result


async def width_becomes(page: Page, width: int, within_s: float = 8) -> None:
    async def reached() -> bool:
        return bool((await stats(page))["width"] == width)

    await until(reached, within_s, f"pictures {width} wide", every_s=0.1)


def limit(node: Node, max_spatial: int) -> None:
    node.do(
        update_subscription=node_pb2.UpdateSubscription(
            transport_id="view/sub", track_id="TR_v", max_spatial=max_spatial
        )
    )


# Chromium counts a frame that a busy machine delivers late as a freeze. A switch that breaks the picture
# freezes it until the next key frame that nobody asked for: for many seconds.
LATE_S = 1.0


async def walk_the_layers(page: Page, node: Node) -> None:
    """Down and up again; pictures go on through each switch."""
    for max_spatial, width in [(0, 320), (2, 1280), (1, 640), (0, 320), (2, 1280)]:
        before = await stats(page)
        limit(node, max_spatial)
        await width_becomes(page, width)
        assert node.flowing("view/sub", "TR_v") == max_spatial
        after = await stats(page)
        assert after["frozen_s"] - before["frozen_s"] < LATE_S, (max_spatial, before, after)


async def test_three_layers_and_switches_without_a_freeze(browser: Browser) -> None:
    node = Node()
    async with closing(node):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish(sender, node)
        await node.connected("chrome/pub")
        await until(lambda: node.live("TR_v") == [0, 1, 2], START_S, "three layers live")
        await subscribe(viewer, node, sections)
        await width_becomes(viewer, 1280)
        await walk_the_layers(viewer, node)
        end = await stats(viewer)
        assert end["lost"] == 0 and end["audio"] > 50 and end["energy"] > 0, end
        levels = [e.audio_levels for e in node.events if e.HasField("audio_levels")]
        assert any(lv.track_id == "TR_a" and lv.level < 40 for event in levels for lv in event.levels)


async def test_layers_over_a_link(browser: Browser) -> None:
    a, b = Node("a"), Node("b")
    async with closing(a, b):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish(sender, a)
        link(a, b)
        for section in sections:
            remote_track(b, section)
        await until(lambda: a.live("TR_v") == [0, 1, 2], START_S, "three layers live")
        await subscribe(viewer, b, sections)
        await width_becomes(viewer, 1280, 10)
        await walk_the_layers(viewer, b)
        limit(b, 0)
        await width_becomes(viewer, 320)

        def narrow() -> bool:
            report = a.report()
            return bool(report.links and 0 < report.links[0].tx_mbps < 0.6)

        await until(narrow, 10, "only the small layer crosses", every_s=1.1)


@pytest.mark.parametrize("rtx", [True, False], ids=["rtx", "same-ssrc"])
async def test_loss_towards_the_subscriber_is_repaired(browser: Browser, rtx: bool) -> None:
    door, port = LossyDoor(), free_port()
    node = Node(bind=f"127.0.0.1:{port}", advertise=[await door.open(port)])
    async with closing(node, door):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish(sender, node)
        await until(lambda: node.live("TR_v") == [0, 1, 2], START_S, "three layers live")
        await subscribe(viewer, node, sections, rtx=rtx)
        await width_becomes(viewer, 1280)
        before = await stats(viewer)
        door.lose_every = 30

        async def decoded() -> bool:
            return bool((await stats(viewer))["decoded"] >= before["decoded"] + 80)

        await until(decoded, 12, "80 more pictures")
        after = await stats(viewer)
        assert door.lost >= 5
        assert after["nacks"] > before["nacks"]
        assert after["frozen_s"] - before["frozen_s"] < LATE_S, (before, after)
        assert after["keys"] <= before["keys"] + 1, "repaired, not restarted"
        assert (after["rtx"] > 0) == rtx
