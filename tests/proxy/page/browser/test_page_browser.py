"""The cluster page in Debian's Chromium, over an edge whose cluster plays a story."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from holdfast_proxy.overview import Overview
from support.cluster_page import LAPTOP, PHONE, Site, Window, serve_story, window
from support.fake_administration import kernel_view, launcher_view, proxy_view
from support.scripted_cluster import after_failover, eventful, kernel_id, line, quiet_day

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]

PLANT = '<img src=x onerror="window.planted=1"><script>window.planted=1</script>'
#: Tailored to end an attribute, a script or a template.
BREAK = "\"'><svg onload=window.planted=1>${window.planted=1}"

CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (colour) => {
    const [r, g, b] = [...rgb(colour)].slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const left = node.closest(".unseen, .skip, title, option, :disabled");
    if (!walker.currentNode.data.trim() || left || !node.checkVisibility()) continue;
    const svg = node.namespaceURI.endsWith("svg");
    const text = getComputedStyle(node)[svg ? "fill" : "color"];
    const [a, b] = [light(text), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${node.className} ${walker.currentNode.data}`);
  }
  return poor;
}"""


async def sideways(page: Page) -> list[str]:
    """What is wider than the window, if the page can be scrolled sideways."""
    found: list[str] = await page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("body *")].filter((node) =>
          node.getBoundingClientRect().right > innerWidth + 0.5 && !node.closest(".unseen"))
          .map((node) => `${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`)"""
    )
    return found


async def settled(made: Window, view: Overview) -> None:
    """Wait until the page shows the last kernel of ``view``'s count."""
    await made.says("#kernel-count", f"{len(view.kernels)} kernel")


async def test_sign_in_out_and_a_wrong_token(browser: Browser, site: Site) -> None:
    async with window(browser, site.url) as made:
        await made.sign_in("wrong")
        await made.says("#message", "not one of this cluster")
        assert await made.page.input_value("#token") == ""
        await made.page.fill("#token", "client-token")
        await made.page.press("#token", "Enter")
        await made.live()
        assert made.page.url == site.url
        assert await made.page.evaluate("document.cookie") == ""
        await made.page.reload()
        await made.live()
        await made.page.click("text=Sign out")
        await made.page.wait_for_selector("#token")
        assert await made.page.context.cookies() == []


async def test_a_failover_shows_by_itself(site: Site, opened: Window, pictures: Path) -> None:
    page = opened.page
    await page.evaluate("window.sameDocument = true")
    await expect(page.locator(".links path")).to_have_count(0)
    site.admin.view = after_failover(site.admin.view)
    await opened.says("#problems", "proxy-2 does not answer")
    row = page.locator("#proxy-rows tr", has_text="proxy-2")
    await expect(row).to_contain_text("does not answer")
    marks = page.locator('.marks [aria-label*="taken over"]')
    await expect(marks).to_have_count(2)  # one on the lane of each heir
    await expect(page.locator(".links path")).to_have_count(2)
    await expect(page.locator('.bars [data-status="unreachable"]')).to_have_count(1)
    await expect(page.locator("#picture-words")).to_contain_text("taken over")
    assert await page.title() == "(1) research · Holdfast"
    owners = await page.locator('#kernel-rows td[data-label="Owner"]').all_inner_texts()
    assert set(owners) == {"proxy-1", "proxy-3"}
    await page.click("text=The same as a list")
    await expect(page.locator("#event-rows tr").first).to_contain_text("from proxy-2: refused")
    assert await page.evaluate("window.sameDocument")
    await page.screenshot(path=pictures / "failover.png", full_page=True)


def planted() -> Overview:
    """Markup in everything that comes from somebody else."""
    texts = {"user": PLANT, "launcher": PLANT, "owner": PLANT, "reason": BREAK}
    kernels = [
        kernel_view(kernel_id(1), name=PLANT, state="dead", **texts),
        kernel_view(PLANT, name=BREAK, state=PLANT, **texts),
    ]
    made = quiet_day()
    return replace(
        made,
        mode=PLANT,
        etcd=replace(made.etcd, version=PLANT, warnings=(PLANT, BREAK), reachable=False),
        proxies=(
            proxy_view("proxy-1", version=PLANT),
            proxy_view(PLANT, url="javascript:window.planted=1", status=PLANT, message=BREAK),
            proxy_view(BREAK, url=f"https://x.example/{PLANT}", status="degraded", message=PLANT),
        ),
        launchers=(launcher_view(PLANT, engine=BREAK, labels={PLANT: BREAK}, alive=False),),
        kernels=tuple(kernels),
        timeline=(
            line(PLANT, 20, kernel=PLANT, proxy=PLANT, detail=PLANT),
            line("taken over", 10, proxy=BREAK, detail=BREAK, facts={"from": PLANT}),
        ),
    )


async def test_markup_in_names_is_text(site: Site, opened: Window) -> None:
    page = opened.page
    site.admin.view = planted()
    await settled(opened, site.admin.view)
    await page.click("text=The same as a list")
    await page.fill("#filter", "<img")
    await page.select_option("#state", PLANT)
    await expect(page.locator("#kernel-rows tr")).to_have_count(1)
    await page.select_option("#state", "")
    await page.fill("#filter", "")
    marks = await page.locator('.marks [aria-label*="window.planted"]').all()
    assert len(marks) == 2
    for mark in marks:
        await mark.hover()
        await expect(page.locator("#tip")).to_contain_text("window.planted=1")
    await site.line.cut()  # the links to other proxies are made of their ids and addresses
    await page.wait_for_selector('[data-connection="lost"]')
    for place in ("#kernel-rows", "#proxy-rows", "#launcher-rows", "#event-rows", "#problems"):
        await expect(page.locator(place)).to_contain_text("<img src=x onerror=")
    assert await page.evaluate("window.planted") is None
    assert await page.locator("img, iframe, object, [onerror], [onload]").count() == 0
    assert await page.locator("script").count() == 1
    links = await page.evaluate("[...document.links].map((link) => link.protocol)")
    assert set(links) <= {"http:", "https:"}
    opened.complaints.clear()  # of the line that was cut


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read_light_and_dark(
    browser: Browser, pictures: Path, scheme: Any
) -> None:
    view = after_failover(eventful(quiet_day(kernels=24)), ago=8)
    async with serve_story(view) as site, window(browser, site.url, scheme=scheme) as made:
        await made.page.goto(made.url)
        assert await made.page.evaluate(CONTRAST) == []
        await made.sign_in()
        await made.live()
        await settled(made, view)
        await made.page.click("text=The same as a list")
        await made.page.locator(".marks .mark").last.hover()
        assert await made.page.evaluate(CONTRAST) == []
        ground = await made.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(value) for value in re.findall(r"\d+", ground)[:3])
        assert (brightness < 200) == (scheme == "dark")
        await made.page.click("text=The same as a list")
        await made.page.screenshot(path=pictures / f"{scheme}.png", full_page=True)


async def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    browser: Browser, pictures: Path
) -> None:
    view = after_failover(eventful(quiet_day(kernels=24)))
    long = "a-very-long-name-that-nobody-can-break-" * 3
    odd = kernel_view(
        kernel_id(99), name=long, user=long, owner=long, launcher=long, reason=long * 3
    )
    view = replace(
        view,
        kernels=(*view.kernels, odd),
        proxies=(*view.proxies, proxy_view(long, url="https://x.example/" + long, version=long)),
        launchers=(*view.launchers, launcher_view(long, engine=long)),
    )
    async with serve_story(view) as site, window(browser, site.url, size=PHONE) as made:
        await made.page.goto(made.url)
        assert await sideways(made.page) == []
        await made.page.screenshot(path=pictures / "phone-sign-in.png")
        await made.sign_in()
        await made.live()
        await settled(made, view)
        await made.page.click("text=The same as a list")
        for mark in (await made.page.locator(".marks .mark").all())[::4]:
            await mark.hover()
            assert await sideways(made.page) == []
        await made.page.screenshot(path=pictures / "phone.png", full_page=True)
        small = await made.page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, summary")]
            .filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 24)
            .map((node) => node.outerHTML)"""
        )
        assert small == []


async def test_five_hundred_kernels_stay_readable(browser: Browser, pictures: Path) -> None:
    async with (
        serve_story(quiet_day(kernels=500)) as site,
        window(browser, site.url, size=LAPTOP) as made,
    ):
        page = made.page
        await made.sign_in()
        await made.live()
        rows = page.locator("#kernel-rows tr")
        await expect(page.locator("#kernel-count")).to_have_text("1\u201350 · 500 kernels")
        await expect(rows).to_have_count(50)
        assert await page.evaluate("document.querySelectorAll('*').length") < 2500
        states = await page.locator("#kernel-rows .state").all_inner_texts()
        assert states[:4] == ["dead", "unreachable", "idle", "busy"]
        await expect(rows.nth(2)).to_contain_text("no proxy owns it")
        await page.screenshot(path=pictures / "five-hundred.png", full_page=True)
        await page.click("#later")
        await expect(page.locator("#kernel-count")).to_have_text("51\u2013100 · 500 kernels")
        # By keyboard: "/" goes to the filter; a head is a button.
        await page.focus("#later")
        await page.keyboard.press("/")
        await page.keyboard.type("grace node-2")
        await expect(page.locator("#kernel-count")).to_contain_text("of 500 kernels")
        users = await page.locator('#kernel-rows td[data-label="User"]').all_inner_texts()
        assert set(users) == {"grace"}
        await page.keyboard.press("Escape")  # what a search box does
        await expect(page.locator("#kernel-count")).to_contain_text("500 kernels")
        await page.focus("#kernel-heads button >> text=Log")
        await page.keyboard.press("Enter")
        head = page.locator("#kernel-heads th", has_text="Log")
        await expect(head).to_have_attribute("aria-sort", "ascending")
        await expect(rows.first).to_contain_text("its log is nearly full")
        await page.keyboard.press("Enter")
        await expect(head).to_have_attribute("aria-sort", "descending")
        await page.select_option("#state", "dead")
        await expect(rows).to_have_count(1)
        await page.fill("#filter", "nobody is called that")
        await made.says("#kernel-none", "No kernel is like that.")


async def test_what_the_reader_does_outlives_the_updates(site: Site, opened: Window) -> None:
    page = opened.page
    await page.fill("#filter", "python")
    await page.focus('.marks [tabindex="0"]')
    await page.evaluate(
        """window.mark = document.activeElement,
        window.row = document.querySelector('#kernel-rows tr')"""
    )
    site.admin.view = replace(site.admin.view, kernels=quiet_day(kernels=9).kernels)
    await opened.says("#kernel-count", "of 9 kernels")
    assert await page.input_value("#filter") == "python"
    assert await page.evaluate("row.isConnected")
    assert await page.evaluate("document.activeElement === mark && mark.matches('.mark')")


async def test_the_picture_by_keyboard(site: Site, opened: Window) -> None:
    page = opened.page
    site.admin.view = eventful(quiet_day(kernels=24))
    await settled(opened, site.admin.view)
    await page.focus("#ranges input:checked")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.matches('.mark')")
    tip = page.locator("#tip")
    await expect(tip).to_contain_text("became leader")  # the newest
    await page.keyboard.press("ArrowLeft")
    await expect(tip).to_contain_text("launcher restarted")
    await page.keyboard.press("Home")
    await expect(tip).not_to_contain_text("launcher restarted")
    await page.keyboard.press("Escape")
    await expect(tip).to_be_hidden()
    await page.keyboard.press("End")
    await expect(tip).to_contain_text("became leader")
    # One stop only: the next Tab leaves the picture.
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"
    await page.focus("#ranges input:checked")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator('#ranges [value="3600"]')).to_be_checked()
