"""Chromium publishes three layers and a tone and is led from node to node: all go on, nobody joins anew.

HEADWATER_CHAOS_MOVES: moves in all (200). Figures add up over runs in the folder HEADWATER_CHAOS_FIGURES.
"""

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.spec import now_ms
from headwater_sandbox.demo.tokens import make_token
from livekit.protocol import models, rtc
from playwright.async_api import Page
from support.chromium import one_page
from support.clients import bots
from support.deadline import until
from support.figures import Figures
from support.protocol_client import ProtocolClient, Seen
from support.static_fleet import API_KEY, API_SECRET, StaticFleet, static_fleet

MOVES = int(os.environ.get("HEADWATER_CHAOS_MOVES", "200"))
ROOM, BOT, CHROMIUM = "moves", "bot-us", "chromium"
# The microphone that Chromium pretends to have beeps now and then; silence must mean that something is lost.
TONE = """async () => {
  const context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  const oscillator = new OscillatorNode(context, { frequency: 700 });
  const out = context.createMediaStreamDestination();
  oscillator.connect(out);
  oscillator.start();
  const options = { source: "screen_share_audio", name: "tone", dtx: false, red: false };
  await headwaterRoom.localParticipant.publishTrack(out.stream.getAudioTracks()[0], options);
}"""
WATCH = """() => {
  window.told = [];
  for (const name of ["reconnecting", "signalReconnecting", "reconnected", "disconnected"])
    headwaterRoom.on(name, () => window.told.push(name));
  window.sid = headwaterRoom.localParticipant.sid;
}"""
NODE = "headwaterRoom.localParticipant.attributes['headwater.node']"
# What Chromium had to make up for the bot's tone, in samples of 48 kHz: what its user did not hear.
CONCEALED = """async () => {
  let samples = 0;
  for (const publication of headwaterRoom.remoteParticipants.get("bot-us").audioTrackPublications.values()) {
    const stats = await publication.track.receiver.getStats();
    for (const s of stats.values()) if (s.type === "inbound-rtp") samples += s.concealedSamples;
  }
  return samples;
}"""
SAMPLES_PER_MS = 48
P99_TONE_GAP_MS = 500
LAYERS = (("LOW", (320, 180)), ("HIGH", (1280, 720)), ("MEDIUM", (640, 360)))

pytestmark = pytest.mark.timeout(120 + 30 * MOVES)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with one_page() as page:
        yield page


async def test_a_simulcast_publisher_is_moved_with_all_its_layers(tmp_path: Path, page: Page) -> None:
    figures = Figures("moves-browser")
    nodes = ("eu-1", "eu-2", "us-1")
    async with (
        static_fleet(tmp_path, nodes) as fleet,
        bots([fleet.bot(BOT, 1, "us", ROOM, hear_ms=20)]) as clients,
    ):
        fragment = urlencode({"token": _token(CHROMIUM), "region": "eu"})
        await page.goto(f"{fleet.url.replace('ws', 'http', 1)}/#{fragment}")
        await page.get_by_role("button", name="Join").click()
        await page.wait_for_selector("body[data-state=connected]", timeout=15_000)
        await page.evaluate(TONE)
        await until(lambda: _flows(clients, 0), 30, "the bot sees and hears Chromium")
        await _each_layer(fleet)
        await page.evaluate(WATCH)
        for number in range(MOVES):
            await _move(fleet, page, clients, figures)
            print(f"move {number}\n{figures.told()}", flush=True)
        await _each_layer(fleet)
    assert figures.at("tone", 0.99) <= P99_TONE_GAP_MS
    assert figures.at("heard", 0.99) <= P99_TONE_GAP_MS


async def _move(fleet: StaticFleet, page: Page, clients: Fleet, figures: Figures) -> None:
    """Off the node where it is, to the other one of its region."""
    first, joins = await page.evaluate(NODE), clients.bots[BOT].joins
    await page.evaluate("window.told.length = 0")
    concealed = await page.evaluate(CONCEALED)
    clients.mark()
    await fleet.drain(first, rate=50)

    async def is_moved() -> bool:
        return bool(
            await page.evaluate(NODE) != first and "reconnected" in await page.evaluate("window.told")
        )

    await until(is_moved, 20, "Chromium has resumed at another node")

    async def is_empty() -> bool:
        report = await fleet.report(first)
        return report.participants == 0 and len(report.rooms) == 0

    await until(is_empty, 15, "the drained node reports nobody and no room", every_s=0.2)
    since = now_ms()
    await until(lambda: _flows(clients, since), 20, "the bot still sees and hears Chromium")
    told: list[str] = await page.evaluate("window.told")
    # livekit-client says "reconnecting" for a new join and "signalReconnecting" for a resume.
    assert "reconnecting" not in told and "disconnected" not in told, told
    assert await page.evaluate("headwaterRoom.localParticipant.sid === window.sid")
    assert clients.bots[BOT].joins == joins
    unheard = (await page.evaluate(CONCEALED) - concealed) / SAMPLES_PER_MS
    figures.add(
        picture=[clients.gap_ms(BOT, CHROMIUM)],
        tone=[clients.tone_gap_ms(BOT, CHROMIUM)],
        heard=[unheard],
    )
    await fleet.drain(first, draining=False)


def _flows(clients: Fleet, since_ms: int) -> bool:
    """The bot has said anew, since that time, that pictures and tone are there."""
    report = clients.pairs().get((BOT, CHROMIUM))
    said = clients.bots[BOT].reported_ms > since_ms + 300
    return said and report is not None and report.fps >= 10 and report.tone


async def _each_layer(fleet: StaticFleet) -> None:
    """A subscriber in another region gets pictures of each size that it asks for."""
    async with ProtocolClient(fleet.url, _token("asker"), region="us") as asker:
        chromium = await until(lambda: asker.participants.get(CHROMIUM), 10, "Chromium is known")
        sid = next(t.sid for t in chromium.tracks if t.type == models.TrackType.VIDEO)
        seen: Seen = await until(lambda: asker.seen.get(sid), 10, "the track is offered")
        for quality, size in LAYERS:
            setting = rtc.UpdateTrackSettings(
                track_sids=[sid], quality=quality, width=size[0], height=size[1]
            )
            await asker.send(track_setting=setting)
            await until(_shows(seen, size), 20, f"the {quality} layer arrives at {size} (got {seen.sizes})")


def _shows(seen: Seen, size: tuple[int, int]) -> Callable[[], Any]:
    before = seen.frames
    return lambda: seen.frames >= before + 5 and seen.sizes and seen.sizes[-1] == size


def _token(identity: str) -> str:
    return make_token(API_KEY, API_SECRET, ROOM, identity, time.time())
