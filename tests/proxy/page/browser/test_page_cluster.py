"""The page on a real cluster: what it shows when a proxy is killed, also the one it came from."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from support.cluster import Cluster
from support.cluster_page import window

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]
#: Milliseconds; the machine may be busy, and a lease must end.
LONG = 40_000


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two proxies; ``proxy-0`` is where kernels are started."""
    made = Cluster(tmp_path / "cluster")
    await asyncio.to_thread(made.start)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.stop)


def start_kernel(cluster: Cluster) -> str:
    request = urllib.request.Request(
        f"{cluster.proxy_urls[0]}/api/kernels",
        method="POST",
        data=b'{"name": "python3"}',
        headers={"Authorization": f"token {cluster.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])


@pytest.mark.timeout(300)
async def test_a_killed_proxy_shows_by_itself_and_so_does_our_own(
    browser: Browser, cluster: Cluster, pictures: Path
) -> None:
    kernels = [await asyncio.to_thread(start_kernel, cluster) for _ in range(2)]
    async with window(browser, f"{cluster.proxy_urls[1]}/cluster") as made:
        page = made.page
        page.set_default_timeout(LONG)
        await made.sign_in(cluster.token)
        await made.live()
        await page.evaluate("window.sameDocument = true")
        rows = page.locator("#kernel-rows tr")
        for kernel in kernels:
            row = rows.filter(has_text=kernel[:8])
            await expect(row.locator('[data-label="Owner"]')).to_have_text("proxy-0", timeout=LONG)
            await expect(row.locator('[data-label="Log"]')).to_contain_text("KiB", timeout=LONG)
            await expect(row.locator(".state")).to_contain_text("idle", timeout=LONG)

        await asyncio.to_thread(cluster.proxies[0].kill)
        takeover = page.locator('.marks [aria-label*="taken over"]').first
        await takeover.wait_for()
        await page.locator(".links path").first.wait_for(state="attached")
        for kernel in kernels:
            row = rows.filter(has_text=kernel[:8])
            await expect(row.locator('[data-label="Owner"]')).to_have_text("proxy-1", timeout=LONG)
        await page.screenshot(path=pictures / "real-failover.png", full_page=True)
        await page.locator('.marks [aria-label*="proxy gone"]').wait_for()
        await expect(page.locator(".lanes .gone")).to_contain_text("proxy-0")

        await asyncio.to_thread(cluster.start_proxy, 0)
        back = page.locator("#proxy-rows tr", has_text="proxy-0")
        await expect(back).to_contain_text("ready", timeout=LONG)
        assert await page.evaluate("window.sameDocument")

        await asyncio.to_thread(cluster.proxies[1].kill)
        await page.wait_for_selector('[data-connection="lost"]')
        # The cookie is the cluster's: the other proxy knows who comes.
        await page.locator("#lost a", has_text="proxy-0").click()
        await made.live()
        assert page.url == f"{cluster.proxy_urls[0]}/cluster"
        await expect(page.locator('.marks [aria-label*="taken over"]').first).to_be_visible()
        for kernel in kernels:
            row = rows.filter(has_text=kernel[:8])
            await expect(row.locator('[data-label="Owner"]')).to_have_text("proxy-0", timeout=LONG)
        await page.screenshot(path=pictures / "real-after.png", full_page=True)
        made.complaints.clear()  # of the proxies that were killed
