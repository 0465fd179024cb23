"""Chromium as publisher and viewer of one engine."""

import itertools
from contextlib import AbstractAsyncContextManager
from typing import Any

from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp import PublisherNegotiation, SendTrack, SubscriberNegotiation
from playwright.async_api import Browser, Page
from support.chromium import launched
from support.deadline import until
from support.native_media import Node

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
PUBLISH = """async ({codec, encodings, width}) => {
  const canvas = document.createElement('canvas');
  const height = width * 9 / 16;
  canvas.width = width; canvas.height = height;
  const c = canvas.getContext('2d');
  let n = 0;
  setInterval(() => {
    c.fillStyle = '#3060c0'; c.fillRect(0, 0, width, height);
    c.fillStyle = '#ffffff'; c.fillRect((n * 8) % (width - 80), height / 2, 80, 80);
    c.font = '80px sans-serif'; c.fillText(String(n++), 40, 120);
  }, 50);
  const video = canvas.captureStream(20).getVideoTracks()[0];
  const context = new AudioContext();
  const tone = context.createOscillator(), sink = context.createMediaStreamDestination();
  tone.connect(sink); tone.start();
  window.pc = new RTCPeerConnection();
  pc.addTransceiver(sink.stream.getAudioTracks()[0], {direction: 'sendonly'});
  const camera = pc.addTransceiver(video, {direction: 'sendonly', sendEncodings: encodings});
  if (codec) {
    const all = RTCRtpReceiver.getCapabilities('video').codecs;
    const chosen = all.filter((x) => x.mimeType === 'video/' + codec);
    camera.setCodecPreferences([...chosen, ...all.filter((x) => x.mimeType === 'video/rtx')]);
  }
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""
SIMULCAST: list[dict[str, Any]] = [
    {"rid": "q", "scaleResolutionDownBy": 4, "maxBitrate": 150_000},
    {"rid": "h", "scaleResolutionDownBy": 2, "maxBitrate": 500_000},
    {"rid": "f", "maxBitrate": 1_500_000},
]
# The longest time without a new picture, and between two looks for one, which a busy machine delays.
WATCH = """() => {
  window.watched = {gap_s: 0, late_s: 0};
  let decoded = -1, since = performance.now(), before = since;
  setInterval(async () => {
    const v = [...(await pc.getStats()).values()].find((s) => s.type === 'inbound-rtp' && s.kind === 'video');
    const now = performance.now();
    watched.late_s = Math.max(watched.late_s, (now - before) / 1000);
    before = now;
    if (!v || v.framesDecoded === decoded) return;
    if (decoded >= 0) watched.gap_s = Math.max(watched.gap_s, (now - since) / 1000);
    decoded = v.framesDecoded; since = now;
  }, 60);
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


def chromium() -> AbstractAsyncContextManager[Browser]:
    """Debian's browser, headless."""
    return launched(SWITCHES)


async def publish(page: Page, node: Node, codec: str | None = None) -> list[node_pb2.ReceiveSection]:
    """Simulcast: three streams."""
    return await _publish(page, node, codec, SIMULCAST, 1280)


async def publish_layers(
    page: Page, node: Node, codec: str, mode: str, width: int = 1280
) -> list[node_pb2.ReceiveSection]:
    """One stream with layers in itself (W3C scalability mode)."""
    return await _publish(page, node, codec, [{"scalabilityMode": mode, "maxBitrate": 1_700_000}], width)


async def _publish(
    page: Page, node: Node, codec: str | None, encodings: list[dict[str, Any]], width: int
) -> list[node_pb2.ReceiveSection]:
    offer = await page.evaluate(PUBLISH, {"codec": codec, "encodings": encodings, "width": width})
    local = node.local()
    answer = PublisherNegotiation().answer(offer, local)
    node.create("chrome/pub", local, answer.remote_fingerprint)
    names = {node_pb2.KIND_AUDIO: "TR_a", node_pb2.KIND_VIDEO: "TR_v"}
    sections = [s.receive_section(names[s.kind]) for s in answer.sections]
    node.do(configure_receive=node_pb2.ConfigureReceive(transport_id="chrome/pub", sections=sections))
    await page.evaluate(ANSWERED, answer.sdp)
    return sections


async def subscribe(
    page: Page,
    node: Node,
    sections: list[node_pb2.ReceiveSection],
    rtx: bool = True,
    *,
    name: str = "view/sub",
    without: str = "nothing",
) -> None:
    """`without`: lines of the offer that hold this do not reach the client."""
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
    node.create(name, local)
    offer_id, offer = negotiation.offer(local)
    seen = "".join(line for line in offer.splitlines(keepends=True) if without not in line)
    answer = negotiation.apply_answer(await page.evaluate(SUBSCRIBE, seen), offer_id)
    for accepted in answer.sections:
        accepted.max_spatial = 2
    node.do(set_remote=node_pb2.SetRemote(transport_id=name, remote_fingerprint=answer.remote_fingerprint))
    node.do(configure_send=node_pb2.ConfigureSend(transport_id=name, sections=answer.sections))


async def stats(page: Page) -> dict[str, Any]:
    result: dict[str, Any] = await page.evaluate(STATS)
    return result


async def width_becomes(page: Page, width: int, within_s: float = 8) -> None:
    async def reached() -> bool:
        return bool((await stats(page))["width"] == width)

    await until(reached, within_s, f"pictures {width} wide", every_s=0.1)
