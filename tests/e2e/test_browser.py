"""Chromium with livekit-client, through the page that the gateway serves."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import Locator, Page
from support.chromium import one_page
from support.clients import bot_spec, bots
from support.cluster import Cluster
from support.deadline import until
from support.protocol_client import ProtocolClient

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
LAYERS = """async () => {
  const publication = [...headwaterRoom.localParticipant.videoTrackPublications.values()][0];
  const stats = await publication.track.sender.getStats();
  return [...stats.values()].filter((s) => s.type === "outbound-rtp" && s.framesEncoded > 5)
    .map((s) => s.rid).sort();
}"""
FRAMES = "(el) => el.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with one_page() as page:
        yield page


async def test_it_joins_publishes_three_layers_and_shows_a_remote_bot(cluster: Cluster, page: Page) -> None:
    room = "browser"
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    # The client's first try, of a newer protocol, is answered 404 and logged as an error: that one is fine.
    page.on("console", lambda line: problems.append(line.text) if "Security Policy" in line.text else None)
    fragment = urlencode({"token": cluster.token(room, "chromium"), "region": "eu"})
    async with bots([bot_spec(cluster, room, "bot-us", 1, "us")]) as fleet:
        await page.goto(f"{cluster.page}/#{fragment}")
        await page.get_by_role("button", name="Join").click()
        await page.wait_for_selector("body[data-state=connected]", timeout=15_000)

        await until(
            lambda: fleet.fps("bot-us", "chromium") >= 10,
            30,
            f"the bot decodes Chromium's video ({problems})",
        )

        async def three_layers() -> bool:
            layers: list[str] = await page.evaluate(LAYERS)
            return layers == ["f", "h", "q"]

        await until(three_layers, 20, "Chromium encodes three layers")

        tile = page.locator(".tile[data-identity=bot-us]")
        before = await tile.evaluate(FRAMES)
        await until(_more(tile, before + 30), 20, "Chromium decodes the bot's video")
        path = await tile.locator(".path").text_content()
        assert path and "→" in path
        ARTIFACTS.mkdir(exist_ok=True)
        await page.screenshot(path=ARTIFACTS / "browser.png")

        await _each_layer_is_live(cluster, room)

        await page.get_by_role("button", name="Leave").click()
        await page.wait_for_selector("#join:not([hidden])", timeout=5_000)
    assert problems == []


def _more(tile: Locator, count: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return int(await tile.evaluate(FRAMES)) >= count

    return enough


async def _each_layer_is_live(cluster: Cluster, room: str) -> None:
    """The node forwards whichever of the three layers a subscriber asks for."""
    from livekit.protocol import models, rtc

    async with ProtocolClient(cluster.gateway, cluster.token(room, "asker"), region="ap") as client:
        chromium = await until(lambda: client.participants.get("chromium"), 10, "Chromium is in the roster")
        sid = next(t.sid for t in chromium.tracks if t.type == models.TrackType.VIDEO)

        def frames() -> dict[str, int]:
            return {track: s.frames for track, s in client.seen.items() if s.kind == "video"}

        # The bot's video too: who comes first in the offer depends on who joined first.
        await until(
            lambda: len(frames()) == 2 and all(frames().values()), 20, "the first frame of each video"
        )
        seen = client.seen[sid]
        for quality, size in (("LOW", (320, 180)), ("HIGH", (1280, 720)), ("MEDIUM", (640, 360))):
            setting = rtc.UpdateTrackSettings(
                track_sids=[sid], quality=quality, width=size[0], height=size[1]
            )
            await client.send(track_setting=setting)
            await until(
                lambda wanted=size: seen.sizes and seen.sizes[-1] == wanted,  # type: ignore[misc]
                20,
                f"the {quality} layer arrives at {size} (got {seen.sizes})",
            )


async def test_a_bad_token_is_told_plainly(cluster: Cluster, page: Page) -> None:
    await page.goto(f"{cluster.page}/#{urlencode({'token': 'nonsense'})}")
    await page.get_by_role("button", name="Join").click()
    error = page.locator("#error")
    await error.wait_for(state="visible", timeout=15_000)
    text = await error.text_content()
    assert text and "token" in text
