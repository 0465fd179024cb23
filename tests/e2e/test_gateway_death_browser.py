"""Chromium with livekit-client, whose gateway is killed: it resumes, and its picture goes on."""

from pathlib import Path
from urllib.parse import urlencode

import pytest
from support.chromium import one_page
from support.clients import bots
from support.deadline import until
from support.gateway_fleet import gateway_fleet

pytestmark = pytest.mark.timeout(150)

WATCH = """() => {
  window.told = [];
  const room = headwaterRoom;
  for (const name of ["reconnecting", "signalReconnecting", "reconnected", "disconnected"])
    room.on(name, () => window.told.push(name));
  window.sid = room.localParticipant.sid;
}"""
GAP_MS = 800


async def test_chromium_resumes_at_another_gateway(tmp_path: Path) -> None:
    room = "browser"
    async with (
        gateway_fleet(tmp_path) as fleet,
        one_page() as page,
        bots([fleet.bot("bot-us", 1, "us", room)]) as bot,
    ):
        where = fleet.balancer.url.replace("ws", "http", 1)
        fragment = urlencode({"token": fleet.token(room, "chromium"), "region": "eu"})
        await page.goto(f"{where}/#{fragment}")
        await page.get_by_role("button", name="Join").click()
        await page.wait_for_selector("body[data-state=connected]", timeout=15_000)
        await until(lambda: bot.fps("bot-us", "chromium") >= 10, 30, "the bot sees Chromium")
        await until(lambda: fleet.has_kept(room, 2, 4), 10, "nodes keep the whole room")
        await page.evaluate(WATCH)
        people = await fleet.sids(room)
        bot.mark()
        await fleet.kill(fleet.owner(room))
        resumed = "() => window.told.includes('reconnected')"
        try:
            await page.wait_for_function(resumed, timeout=10_000)
        except Exception as error:
            raise AssertionError(
                f"{error}; told: {await page.evaluate('window.told')}\n{fleet.printed()}"
            ) from None
        await until(lambda: bot.fps("bot-us", "chromium") >= 10, 20, "the bot still sees Chromium")
        told = await page.evaluate("window.told")
        gap = bot.gap_ms("bot-us", "chromium")
        print("told", told, "gap", gap)
        # livekit-client says "reconnecting" for a new join and "signalReconnecting" for a resume.
        assert "reconnecting" not in told and "disconnected" not in told
        assert await page.evaluate("headwaterRoom.localParticipant.sid === window.sid")
        assert await fleet.sids(room) == people, "nobody had to join again"
        assert gap <= GAP_MS
