"""Debian's Chromium, headless, driven by playwright's own wheel.

It never downloads a browser, and Chromium itself is kept from talking to anybody but the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, ViewportSize, async_playwright

#: Without a sandbox: CI runs as root, where Chromium refuses one. It opens loopback pages only.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: What a person's laptop shows.
VIEWPORT: ViewportSize = {"width": 1280, "height": 900}


@asynccontextmanager
async def chromium(executable: str) -> AsyncIterator[Browser]:
    """A running browser with a new, empty profile, which goes with it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, headless=True, args=list(FLAGS)
        )
        try:
            yield browser
        finally:
            await browser.close()
