"""Real receivers on bad paths for a long time. SECONDS: length of each phase (default 60)."""

import os
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser
from support.chromium_engine import START_S, chromium, publish, stats, subscribe, width_becomes
from support.deadline import until
from support.native_media import LossyDoor, Node, closing, free_port

SECONDS = int(os.environ.get("SECONDS", "60"))
pytestmark = pytest.mark.timeout(180 + 3 * SECONDS)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.mark.parametrize("percent", [1, 5])
async def test_random_loss_freezes_the_picture_for_two_per_cent_of_the_time_at_most(
    browser: Browser, percent: int
) -> None:
    door, port = LossyDoor(), free_port()
    node = Node(bind=f"127.0.0.1:{port}", advertise=[await door.open(port)])
    async with closing(node, door):
        sender, viewer = await browser.new_page(), await browser.new_page()
        sections = await publish(sender, node)
        await until(lambda: node.live("TR_v") == [0, 1, 2], START_S, "three layers live")
        await subscribe(viewer, node, sections)
        await width_becomes(viewer, 1280, 15)
        before = await stats(viewer)
        door.lose_share = percent / 100

        async def seen() -> bool:
            return bool(
                (await stats(viewer))["audio"] >= before["audio"] + SECONDS * 50 * (1 - percent / 100)
            )

        await until(seen, SECONDS * 1.5 + 10, f"{SECONDS} s of media", every_s=0.5)
        after = await stats(viewer)
        frozen = after["frozen_s"] - before["frozen_s"]
        frames = after["decoded"] - before["decoded"]
        print(f"{percent} % loss: frozen {frozen:.2f} s of {SECONDS} s, {frames} frames")
        assert door.lost >= door.passed * percent / 100 * 0.5
        assert frozen <= 0.02 * SECONDS, (before, after)
        assert after["width"] == 1280
