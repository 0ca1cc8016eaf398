"""What is old is never shown as live: the line cut, a frozen proxy, a session that ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from holdfast_proxy.config import ProxyConfig, Secret
from holdfast_proxy.errors import Unavailable
from support.cluster_page import Site, Window, window
from support.edge_server import serve_edge
from support.scripted_cluster import quiet_day
from support.tcp_line import TcpLine

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]
#: Seconds of silence after which the page gives up, and half of a busy machine's delay.
SILENCE = 6.0


async def test_a_line_that_is_cut_shows_at_once_and_comes_back_by_itself(
    site: Site, opened: Window, pictures: Path
) -> None:
    page = opened.page
    await page.evaluate("window.sameDocument = true")
    await site.line.cut()
    began = time.monotonic()
    await page.wait_for_selector('[data-connection="lost"]')
    assert time.monotonic() - began < 3
    notice = page.locator("#lost")
    await expect(notice).to_contain_text("Not connected since")
    await expect(notice).to_contain_text("What you see is from then.")
    links = await notice.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert links == ["http://127.0.0.1:1/2/cluster", "http://127.0.0.1:1/3/cluster"]
    await expect(page.locator("#badge")).to_have_text("Not connected")
    await expect(page.locator("main")).to_have_css("opacity", "0.55")
    await expect(page.locator("#updated")).to_contain_text("ago")
    await page.screenshot(path=pictures / "not-connected.png")
    site.admin.view = quiet_day(kernels=9)
    await site.line.open()
    await opened.live()
    await opened.says("#kernel-count", "9 kernels")
    await expect(notice).to_be_hidden()
    await expect(page.locator("main")).to_have_css("opacity", "1")
    assert await page.evaluate("window.sameDocument")
    opened.complaints.clear()


async def test_a_frozen_proxy_is_not_live_though_its_connection_is(
    site: Site, opened: Window
) -> None:
    site.line.hold_answers()
    await site.line.swallowed.wait()
    heard = time.monotonic()
    await opened.page.wait_for_selector('[data-connection="lost"]')
    assert SILENCE - 3 < time.monotonic() - heard < SILENCE + 4
    site.line.release_answers()
    await opened.live()


async def test_a_proxy_that_cannot_see_the_cluster_is_not_live(site: Site, opened: Window) -> None:
    site.admin.failure = Unavailable("this proxy has not read the cluster yet")
    await opened.page.wait_for_selector('[data-connection="lost"]')
    await opened.says("#updated", "has not read the cluster")
    site.admin.failure = None
    await opened.live()
    await expect(opened.page.locator("#updated")).not_to_contain_text("has not read")


async def test_a_session_that_ended_says_so_and_stops_asking(browser: Browser, site: Site) -> None:
    """Behind one address: first this proxy, then one whose token is another."""
    async with TcpLine(site.edge.port) as line:
        url = f"http://127.0.0.1:{line.port}/cluster"
        async with window(browser, url) as made:
            await made.sign_in()
            await made.live()
            config = ProxyConfig(
                token=Secret("another"),
                single_user=True,
                cluster_key=Secret("cluster-key"),
                cluster="research",
            )
            async with serve_edge(site.story, config=config) as changed:
                line.aim(changed.port)
                await line.drop()
                await made.page.wait_for_selector('[data-connection="signed-out"]')
                await made.says("#lost", "You are signed out.")
                await made.page.click("text=Sign in again")
                await made.page.fill("#token", "another")
                await made.page.click("button")
                await made.live()
            made.complaints.clear()


async def test_a_proxy_of_another_version_asks_for_a_reload(site: Site, opened: Window) -> None:
    await opened.page.route(
        "**/cluster/snapshot?*", lambda route: route.fulfill(json={"version": 2})
    )
    await site.line.drop()
    await opened.page.wait_for_selector('[data-connection="outdated"]')
    await opened.says("#lost", "Load the page anew")
    opened.complaints.clear()


async def test_many_changes_a_second_keep_the_page_at_ease(site: Site, opened: Window) -> None:
    """A storm: the page shows the last state, and its script is not busy all the time."""
    view = quiet_day(kernels=500)
    await opened.page.evaluate(
        """() => { window.longest = 0; let last = performance.now();
        setInterval(() => { const now = performance.now();
          longest = Math.max(longest, now - last); last = now; }, 20); }"""
    )
    for n in range(8):
        states = ("idle", "busy")
        kernels = [replace(k, state=states[(i + n) % 2]) for i, k in enumerate(view.kernels)]
        site.admin.view = replace(view, kernels=tuple(kernels))
        await asyncio.sleep(0.5)
    site.admin.view = replace(view, kernels=view.kernels[:77])
    await opened.says("#kernel-count", "77 kernels")
    assert await opened.page.evaluate("longest") < 2000


async def test_without_a_stream_it_asks_again_and_does_not_say_live(
    site: Site, opened: Window
) -> None:
    """As behind an intermediary that holds events back, or with too many pages open."""
    await opened.page.route("**/cluster/events", lambda route: route.abort())
    await site.line.drop()
    await opened.page.wait_for_selector('[data-connection="polled"]')
    await opened.says("#lost", "No live updates come through.")
    await expect(opened.page.locator("#badge")).to_have_text("Not live")
    site.admin.view = quiet_day(kernels=9)
    await opened.says("#kernel-count", "9 kernels")
    await opened.page.unroute("**/cluster/events")
    await opened.live()
    opened.complaints.clear()
