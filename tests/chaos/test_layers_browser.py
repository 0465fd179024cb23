"""Chromium sends layers, in three streams or in one; pictures go on through a minute of switches."""

import itertools
import os
import time
from collections.abc import AsyncIterator

import pytest
from headwater_api.nodev1 import node_pb2
from playwright.async_api import Browser, Page
from support.chromium_engine import (
    START_S,
    WATCH,
    chromium,
    publish,
    publish_layers,
    stats,
    subscribe,
    width_becomes,
)
from support.deadline import until
from support.native_media import Node, closing

SECONDS = float(os.environ.get("SECONDS_OF_SWITCHES", "60"))
WIDTHS = {0: 320, 1: 640, 2: 1280}
# A frame that refers to one that is not there stops the picture until a key frame that nobody asked for.
GAP_S = 2.0

pytestmark = pytest.mark.timeout(180 + 3 * SECONDS)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def switch(viewer: Page, node: Node, max_spatial: int) -> None:
    """Ask for a layer, see its pictures, and more of them."""
    before = await stats(viewer)
    update = node_pb2.UpdateSubscription(transport_id="view/sub", track_id="TR_v", max_spatial=max_spatial)
    node.do(update_subscription=update)
    await width_becomes(viewer, WIDTHS[max_spatial], START_S)
    await until(lambda: node.flowing("view/sub", "TR_v") == max_spatial, 10, "the room is told")

    async def goes_on() -> bool:
        return bool((await stats(viewer))["decoded"] >= before["decoded"] + 5)

    await until(goes_on, START_S, "five more pictures")


@pytest.mark.parametrize(
    ("codec", "mode"), [("VP8", ""), ("H264", ""), ("VP9", "L3T3_KEY"), ("AV1", "L3T3_KEY")]
)
async def test_pictures_go_on_through_a_minute_of_switches(browser: Browser, codec: str, mode: str) -> None:
    node = Node()
    async with closing(node):
        sender, viewer = await browser.new_page(), await browser.new_page()
        if mode:
            sections = await publish_layers(sender, node, codec, mode)
        else:
            sections = await publish(sender, node, codec)
        await node.connected("chrome/pub")
        await until(lambda: node.live("TR_v") == [0, 1, 2], START_S, "three layers live")
        await subscribe(viewer, node, sections)
        await width_becomes(viewer, 1280, START_S)
        await viewer.evaluate(WATCH)
        start, begun, switches = await stats(viewer), time.monotonic(), 0
        for layer in itertools.cycle((0, 2, 1, 0, 1, 2)):
            if time.monotonic() - begun >= SECONDS:
                break
            await switch(viewer, node, layer)
            switches += 1
        end, watched = await stats(viewer), await viewer.evaluate("() => watched")
        took = time.monotonic() - begun
        change = {name: round(end[name] - start[name], 2) for name in end if name not in ("width", "energy")}
        print(f"{codec} {mode or 'simulcast'}: {switches} switches in {took:.0f} s, {change}, {watched}")
        assert end["lost"] == 0, "numbers close up over what is left out"
        assert watched["gap_s"] < GAP_S and change["frozen_s"] < GAP_S, (watched, change)
