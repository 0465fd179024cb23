"""Chromium against the engine: simulcast, layer switches, RTX under loss, the same over a relay link."""

from collections.abc import AsyncIterator

import pytest
from headwater_api.nodev1 import node_pb2
from playwright.async_api import Browser, Page
from support.chromium_engine import START_S, chromium, publish, stats, subscribe, width_becomes
from support.deadline import until
from support.native_media import LossyDoor, Node, closing, free_port, link, remote_track

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


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

        async def settled() -> bool:
            seen = await stats(viewer)
            return bool(seen["decoded"] >= 60 and seen["width"] == 1280)

        # In its first seconds an estimate may still change layers, each change with a key frame of its own.
        await until(settled, 12, "the large layer for a while")
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
