"""How tests start Chromium."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    # Without it a machine with nothing but `lo` gives Chromium no candidate at all.
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=no-user-gesture-required",
]


@asynccontextmanager
async def launched(switches: Sequence[str] = SWITCHES) -> AsyncIterator[Browser]:
    """Debian's browser, headless."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", headless=True, args=switches
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def one_page() -> AsyncIterator[Page]:
    """A window of it."""
    async with launched() as browser:
        yield await browser.new_page(viewport={"width": 1280, "height": 800})
