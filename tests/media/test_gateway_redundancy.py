"""Opus with copies of earlier frames (RFC 2198): who takes it gets it, who does not hears the same plain."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from headwater_sandbox.demo.tokens import make_token
from headwater_sandbox.demo.tone import frequency, tone_block, tone_heard
from livekit import rtc
from playwright.async_api import Page
from support.chromium import one_page
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.sdk_client import sdk_client
from support.static_fleet import API_KEY, API_SECRET, StaticFleet, static_fleet

ROOM, RATE = "copies", 48_000
BLOCK = RATE // 50
PUBLISH = """async ({hz, red}) => {
  const context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  const oscillator = new OscillatorNode(context, { frequency: hz });
  const out = context.createMediaStreamDestination();
  oscillator.connect(out);
  oscillator.start();
  const options = { source: "screen_share_audio", name: "tone", dtx: false, red };
  await headwaterRoom.localParticipant.publishTrack(out.stream.getAudioTracks()[0], options);
}"""
# Of each audio track that it gets: packets, how many of the frames in them it had already, and the loudest
# frequency as its user hears it. (The codec that Chromium names is the one within, with copies or without.)
HEARD = """async () => {
  const found = {};
  for (const who of headwaterRoom.remoteParticipants.values())
    for (const publication of who.audioTrackPublications.values()) {
      if (!publication.track) continue;
      const all = [...(await publication.track.receiver.getStats()).values()];
      const stream = all.find((s) => s.type === "inbound-rtp");
      window.ears ??= new AudioContext({ sampleRate: 48000 });
      window.ear ??= {};
      let ear = window.ear[publication.trackSid];
      if (!ear) {
        ear = window.ear[publication.trackSid] = new AnalyserNode(window.ears, { fftSize: 8192 });
        const media = new MediaStream([publication.track.mediaStreamTrack]);
        new MediaStreamAudioSourceNode(window.ears, { mediaStream: media }).connect(ear);
      }
      const bins = new Float32Array(ear.frequencyBinCount);
      ear.getFloatFrequencyData(bins);
      const top = bins.indexOf(Math.max(...bins));
      found[publication.trackName] = {
        packets: stream ? stream.packetsReceived : 0, copies: stream ? stream.packetsDiscarded : 0,
        hz: bins[top] > -60 ? top * 48000 / 8192 : 0,
      };
    }
  return found;
}"""
pytestmark = pytest.mark.timeout(150)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[StaticFleet]:
    async with static_fleet(tmp_path, ("eu-1", "us-1")) as fleet:
        yield fleet


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with one_page() as page:
        yield page


def _token(identity: str) -> str:
    return make_token(API_KEY, API_SECRET, ROOM, identity, time.time())


async def _join(page: Page, fleet: StaticFleet, identity: str, region: str) -> None:
    fragment = urlencode({"token": _token(identity), "region": region})
    await page.goto(f"{fleet.url.replace('ws', 'http', 1)}/#{fragment}")
    await page.get_by_role("button", name="Join").click()
    await page.wait_for_selector("body[data-state=connected]", timeout=15_000)


def _has_copies(row: dict[str, float]) -> bool:
    """Of nearly all packets but the first, the receiver had one frame already."""
    return row["copies"] > 0.8 * row["packets"] > 20


class Ear:
    """Whether the tone of a source is in what comes."""

    def __init__(self, source: int) -> None:
        self.hz, self.blocks, self.parts = frequency(source), 0, np.zeros(0, np.int16)

    def feed(self, samples: Any) -> None:
        self.parts = np.concatenate([self.parts, samples])
        while len(self.parts) >= RATE // 10:
            block, self.parts = self.parts[: RATE // 10], self.parts[RATE // 10 :]
            self.blocks += tone_heard(block, self.hz, RATE)


async def _sdk_ear(track: Any, ear: Ear) -> None:
    stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=100, capacity=20)
    with contextlib.suppress(asyncio.CancelledError):
        async for event in stream:
            ear.feed(np.frombuffer(event.frame.data, dtype=np.int16))
    await stream.aclose()


async def _sdk_tone(microphone: rtc.AudioSource, source: int) -> None:
    start = 0
    while True:
        samples = tone_block(frequency(source), RATE, start, BLOCK)
        await microphone.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, BLOCK))
        start += BLOCK


async def _whep_ear(track: Any, ear: Ear) -> None:
    while True:
        frame = await track.recv()
        ear.feed(frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0])


async def _watch(http: aiohttp.ClientSession, fleet: StaticFleet, pc: RTCPeerConnection) -> None:
    pc.addTransceiver("audio", direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"Authorization": f"Bearer {_token('whep')}", "Content-Type": "application/sdp"}
    url = f"{fleet.url.replace('ws', 'http', 1)}/whep/{ROOM}"
    async with http.post(url, data=pc.localDescription.sdp, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        await pc.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))


def _spawn(stack: AsyncExitStack, work: Any) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def test_chromium_sends_copies_and_everybody_hears_the_tone(fleet: StaticFleet, page: Page) -> None:
    async with AsyncExitStack() as stack:
        hz, ear = frequency(3), Ear(3)
        other = await stack.enter_async_context(one_page())
        for who, at in ((page, "eu"), (other, "us")):
            await _join(who, fleet, f"chromium-{at}", at)
        sdk = await stack.enter_async_context(sdk_client(f"{fleet.url}?region=us", _token("sdk")))

        def on_track(track: Any, *_: Any) -> None:
            if track.name == "tone":
                _spawn(stack, _sdk_ear(track, ear))

        sdk.room.on("track_subscribed", on_track)
        await page.evaluate(PUBLISH, {"hz": hz, "red": True})
        aiortc = ProtocolClient(fleet.url, _token("aiortc"), region="us")
        plain = await stack.enter_async_context(aiortc)
        await until(lambda: ear.blocks >= 10, 20, "the SDK hears the tone")
        await until(
            lambda: any(tone_heard(track.sound, hz, RATE) for track in plain.seen.values()),
            20,
            "aiortc, which knows no redundancy, hears it",
        )
        heard: dict[str, Any] = {}

        async def in_chromium() -> bool:
            heard.update(await other.evaluate(HEARD))
            row = heard.get("tone", {"hz": 0, "packets": 0})
            return bool(abs(row["hz"] - hz) < 12 and row["packets"] > 100)

        await until(in_chromium, 20, f"the other Chromium hears {hz} Hz ({heard})")
        assert _has_copies(heard["tone"]), heard
        tracks = plain.participants["chromium-eu"].tracks
        assert {t.name: t.mime_type for t in tracks}["tone"] == "audio/red"


async def _publish(stack: AsyncExitStack, fleet: StaticFleet, identity: str, source: int, red: bool) -> str:
    """A tone by the SDK; the codec that the gateway told it of."""
    sdk = await stack.enter_async_context(sdk_client(fleet.url, _token(identity)))
    microphone = rtc.AudioSource(RATE, 1, queue_size_ms=40)
    track = rtc.LocalAudioTrack.create_audio_track(identity, microphone)
    _spawn(stack, _sdk_tone(microphone, source))
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=red)
    publication = await sdk.room.local_participant.publish_track(track, options)
    return str(publication.sid)


async def test_the_sdk_sends_copies_unless_its_track_says_not(fleet: StaticFleet, page: Page) -> None:
    await _join(page, fleet, "chromium", "eu")
    async with AsyncExitStack() as stack:
        tones = {"with": frequency(5), "without": frequency(9)}
        await _publish(stack, fleet, "with", 5, red=True)
        await _publish(stack, fleet, "without", 9, red=False)
        heard: dict[str, Any] = {}

        async def both() -> bool:
            heard.update(await page.evaluate(HEARD))
            rows = {who: heard.get(who, {"hz": 0, "packets": 0}) for who in tones}
            return all(
                abs(rows[who]["hz"] - hz) < 12 and rows[who]["packets"] > 100 for who, hz in tones.items()
            )

        await until(both, 30, f"Chromium hears both ({heard})")
        assert _has_copies(heard["with"]), heard
        assert 5 * heard["without"]["copies"] < heard["without"]["packets"], heard


async def test_a_viewer_by_whep_hears_the_tone_plain(fleet: StaticFleet) -> None:
    async with AsyncExitStack() as stack:
        sid = await _publish(stack, fleet, "with", 5, red=True)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        viewer, ear = RTCPeerConnection(), Ear(5)
        stack.push_async_callback(viewer.close)
        await _watch(http, fleet, viewer)
        _spawn(stack, _whep_ear(viewer.getTransceivers()[0].receiver.track, ear))
        await until(lambda: ear.blocks >= 10, 20, "the viewer hears the tone")
        seen = await stack.enter_async_context(ProtocolClient(fleet.url, _token("witness")))
        info = {t.sid: t.mime_type for t in seen.participants["with"].tracks}
        assert info[sid] == "audio/red"
