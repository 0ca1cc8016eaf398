"""The cluster page in a browser's window, and a site to open it on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page

from holdfast_proxy.config import ProxyConfig, Secret
from holdfast_proxy.overview import Overview
from support.edge_server import TOKEN, EdgeServer, serve_edge
from support.fake_cluster import FakeCluster
from support.scripted_cluster import LiveClock, quiet_day
from support.tcp_line import TcpLine

#: Milliseconds that the page gets for anything; the machine may be busy.
PATIENCE = 20_000
LAPTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
CONFIG = ProxyConfig(
    token=Secret(TOKEN), single_user=True, cluster_key=Secret("cluster-key"), cluster="research"
)


@dataclass
class Window:
    """The page in a window of its own. ``complaints``: what the browser found wrong."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    async def sign_in(self, token: str = TOKEN) -> None:
        await self.page.goto(self.url)
        await self.page.fill("#token", token)
        await self.page.click("button")

    async def live(self) -> None:
        await self.page.wait_for_selector('[data-connection="live"] #facts div')

    async def says(self, selector: str, text: str) -> None:
        """Wait until an element has this text somewhere."""
        await self.page.locator(selector, has_text=text).first.wait_for()

    def noted(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


@asynccontextmanager
async def window(
    browser: Browser, url: str, *, scheme: Any = "light", size: Any = LAPTOP
) -> AsyncIterator[Window]:
    """A window without cookies; fails at the end for what the browser complained of."""
    context = await browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    try:
        page = await context.new_page()
        made = Window(page, url)
        page.on("console", made.noted)
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        yield made
        assert not made.complaints
    finally:
        await context.close()


@dataclass
class Site:
    """One proxy's edge, the line through which browsers reach it, and what it tells."""

    story: FakeCluster
    edge: EdgeServer
    line: TcpLine

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.line.port}/cluster"

    @property
    def admin(self) -> LiveClock:
        assert isinstance(self.story.admin, LiveClock)
        return self.story.admin


@asynccontextmanager
async def serve_story(view: Overview | None = None) -> AsyncIterator[Site]:
    """A proxy's edge on loopback that tells ``view``, a quiet day if None."""
    cluster = FakeCluster("proxy-1")
    cluster.admin = LiveClock()
    cluster.admin.view = view or quiet_day()
    async with serve_edge(cluster, config=CONFIG) as edge, TcpLine(edge.port) as line:
        yield Site(cluster, edge, line)
