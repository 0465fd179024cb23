"""Chromium publishes three layers and is led to another node: each layer goes on, nobody joins anew."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from headwater_sandbox.demo.tokens import make_token
from livekit.protocol import models, rtc
from playwright.async_api import Page, async_playwright
from support.chromium import SWITCHES
from support.clients import bots
from support.deadline import until
from support.protocol_client import ProtocolClient, Seen
from support.static_fleet import API_KEY, API_SECRET, StaticFleet, static_fleet

pytestmark = pytest.mark.timeout(150)

ROOM = "moves"
WATCH = """() => {
  window.told = [];
  for (const name of ["reconnecting", "signalReconnecting", "reconnected", "disconnected"])
    headwaterRoom.on(name, () => window.told.push(name));
  window.sid = headwaterRoom.localParticipant.sid;
}"""
NODE = "headwaterRoom.localParticipant.attributes['headwater.node']"
# For a busy machine: what a new join would cost is seconds.
PICTURE_MS = 2500
LAYERS = (("LOW", (320, 180)), ("HIGH", (1280, 720)), ("MEDIUM", (640, 360)))


async def test_a_simulcast_publisher_is_moved_with_all_its_layers(tmp_path: Path) -> None:
    async with static_fleet(tmp_path, ("eu-1", "eu-2", "us-1")) as fleet, async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", headless=True, args=SWITCHES
        )
        try:
            page = await browser.new_page(viewport={"width": 1280, "height": 800})
            await _move(fleet, page)
        finally:
            await browser.close()


async def _move(fleet: StaticFleet, page: Page) -> None:
    async with bots([fleet.bot("bot-us", 1, "us", ROOM)]) as bot:
        fragment = urlencode({"token": _token("chromium"), "region": "eu"})
        await page.goto(f"{fleet.url.replace('ws', 'http', 1)}/#{fragment}")
        await page.get_by_role("button", name="Join").click()
        await page.wait_for_selector("body[data-state=connected]", timeout=15_000)
        await until(lambda: bot.fps("bot-us", "chromium") >= 10, 30, "the bot sees Chromium")
        await _each_layer(fleet)
        first = await page.evaluate(NODE)
        await page.evaluate(WATCH)
        bot.mark()
        await fleet.drain(first, rate=50)

        async def is_moved() -> bool:
            return bool(await page.evaluate(NODE) != first and "reconnected" in await _told(page))

        await until(is_moved, 20, "Chromium has resumed at another node")

        async def is_empty() -> bool:
            report = await fleet.report(first)
            return report.participants == 0 and len(report.rooms) == 0

        await until(is_empty, 15, "the drained node reports nobody and no room", every_s=0.5)
        await until(lambda: bot.fps("bot-us", "chromium") >= 10, 20, "the bot still sees Chromium")
        gap, told = bot.gap_ms("bot-us", "chromium"), await _told(page)
        # livekit-client says "reconnecting" for a new join and "signalReconnecting" for a resume.
        assert "reconnecting" not in told and "disconnected" not in told
        assert await page.evaluate("headwaterRoom.localParticipant.sid === window.sid")
        assert gap <= PICTURE_MS
        await _each_layer(fleet)


async def _told(page: Page) -> list[str]:
    told: list[str] = await page.evaluate("window.told")
    return told


async def _each_layer(fleet: StaticFleet) -> None:
    """A subscriber in another region gets pictures of each size that it asks for."""
    async with ProtocolClient(fleet.url, _token("asker"), region="us") as asker:
        chromium = await until(lambda: asker.participants.get("chromium"), 10, "Chromium is known")
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
