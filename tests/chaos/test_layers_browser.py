"""Chromium sends one stream with three spatial layers; pictures go on while a viewer's are switched."""

import os
from collections.abc import AsyncIterator

import pytest
from headwater_api.nodev1 import node_pb2
from playwright.async_api import Browser, Page
from support.chromium_engine import START_S, chromium, publish_layers, stats, subscribe, width_becomes
from support.deadline import until
from support.native_media import Node, closing

ROUNDS = int(os.environ.get("ROUNDS", "10"))
WIDTHS = {0: 320, 1: 640, 2: 1280}

pytestmark = pytest.mark.timeout(120 + 60 * ROUNDS)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def switch(viewer: Page, node: Node, max_spatial: int) -> float:
    """Ask for a layer and see it; returns how long the picture stood still, in seconds."""
    before = await stats(viewer)
    update = node_pb2.UpdateSubscription(transport_id="view/sub", track_id="TR_v", max_spatial=max_spatial)
    node.do(update_subscription=update)
    await width_becomes(viewer, WIDTHS[max_spatial], START_S)
    await until(lambda: node.flowing("view/sub", "TR_v") == max_spatial, 10, "the room is told")

    async def goes_on() -> bool:
        return bool((await stats(viewer))["decoded"] >= before["decoded"] + 10)

    await until(goes_on, START_S, "ten more pictures")
    return float((await stats(viewer))["frozen_s"] - before["frozen_s"])


async def test_pictures_go_on_through_switches_of_layers_within_a_stream(browser: Browser) -> None:
    node = Node()
    async with closing(node):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish_layers(sender, node, "VP9", "L3T3_KEY")
        await node.connected("chrome/pub")
        await until(lambda: node.live("TR_v") == [0, 1, 2], START_S, "three layers of one stream live")
        await subscribe(viewer, node, sections)
        await width_becomes(viewer, 1280, START_S)
        frozen = [await switch(viewer, node, layer) for _ in range(ROUNDS) for layer in (0, 2, 1, 0, 1, 2)]
        end = await stats(viewer)
        print(f"{len(frozen)} switches, longest freeze {max(frozen):.2f} s, {end}")
        assert end["lost"] == 0, "numbers close up over what is left out"
        assert max(frozen) < 2.0, frozen
