"""Chromium's AV1 through the engine: layers within one stream by the dependency descriptor, and without."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from headwater_api.nodev1 import node_pb2
from playwright.async_api import Browser, Page
from support.chromium_engine import START_S, chromium, publish_layers, stats, subscribe, width_becomes
from support.deadline import until
from support.native_media import Node, closing

WIDTH = 640  # two layers, small enough to be encoded beside other tests

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def decodes(page: Page, pictures: int) -> None:
    start = (await stats(page))["decoded"]

    async def reached() -> bool:
        return bool((await stats(page))["decoded"] >= start + pictures)

    await until(reached, START_S, f"{pictures} more pictures", every_s=0.1)


async def test_layers_of_av1_are_switched_and_who_knows_no_descriptor_gets_the_smallest(
    browser: Browser,
) -> None:
    node = Node()
    async with closing(node):
        sender, viewer, plain = [await browser.new_page() for _ in range(3)]
        sections = await publish_layers(sender, node, "AV1", "L2T3_KEY", WIDTH)
        await node.connected("chrome/pub")
        await until(lambda: node.live("TR_v") == [0, 1], START_S, "two layers of one stream live")
        await subscribe(viewer, node, sections)
        await subscribe(plain, node, sections, name="plain/sub", without="dependency-descriptor")
        await width_becomes(plain, WIDTH // 2, START_S)
        for layer, width in [(1, WIDTH), (0, WIDTH // 2), (1, WIDTH)]:
            update = node_pb2.UpdateSubscription(transport_id="view/sub", track_id="TR_v", max_spatial=layer)
            node.do(update_subscription=update)
            await width_becomes(viewer, width, START_S)
            await until(partial(flows, node, layer), 10, "the room is told")
            await decodes(viewer, 10)
        await decodes(plain, 10)
        ends = [await stats(page) for page in (viewer, plain)]
        assert ends[1]["width"] == WIDTH // 2
        assert all(end["lost"] == 0 for end in ends), ends


def flows(node: Node, layer: int) -> bool:
    return node.flowing("view/sub", "TR_v") == layer


@pytest.mark.parametrize("without", ["nothing", "dependency-descriptor", "extmap-allow-mixed"])
async def test_av1_of_one_layer_is_decoded(browser: Browser, without: str) -> None:
    node = Node()
    async with closing(node):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish_layers(sender, node, "AV1", "L1T3", WIDTH)
        await node.connected("chrome/pub")
        await subscribe(viewer, node, sections, without=without)
        await width_becomes(viewer, WIDTH, START_S)
        await decodes(viewer, 20)
        assert (await stats(viewer))["lost"] == 0
