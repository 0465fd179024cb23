"""Chromium behind a path that becomes narrow and wide again."""

from collections.abc import AsyncIterator

import pytest
from headwater_api.nodev1 import node_pb2
from playwright.async_api import Browser
from support.chromium_engine import START_S, chromium, publish, stats, subscribe, width_becomes
from support.deadline import until
from support.native_media import LossyDoor, Node, closing, free_port

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_a_narrow_path_gets_a_smaller_picture_and_the_large_one_comes_back(browser: Browser) -> None:
    door, port = LossyDoor(), free_port()
    node = Node(bind=f"127.0.0.1:{port}", advertise=[await door.open(port)])
    async with closing(node, door):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish(sender, node)
        await until(lambda: node.live("TR_v") == [0, 1, 2], START_S, "three layers live")
        door.bps = 5_000_000
        await subscribe(viewer, node, sections)
        await width_becomes(viewer, 1280, 15)

        door.bps = 300_000
        await width_becomes(viewer, 320, 12)
        before = await stats(viewer)

        async def goes_on() -> bool:
            now = await stats(viewer)
            enough = now["audio"] >= before["audio"] + 100 and now["decoded"] >= before["decoded"] + 20
            return bool(enough)

        await until(goes_on, 8, "audio and the small picture go on", every_s=0.1)

        door.bps = 5_000_000
        await width_becomes(viewer, 1280, 15)
        assert node.flowing("view/sub", "TR_v") == 2
        await until(lambda: any(e.quality.downlink_bps for e in node.events), 15, "the estimate is told")
        assert not [e for e in node.events if e.subscription.limited and e.subscription.track_id == "TR_a"]
        assert node_pb2.EXTENSION_TRANSPORT_CC in {e.extension for s in sections for e in s.extensions}
