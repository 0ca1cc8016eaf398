"""The status item, its popup and the toasts, as a person has them in a real JupyterLab."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Request, Response, expect

from labextension.scripted_lab import GATEWAYS, ScriptedLab, Told
from labextension.status_page import SOON, StatusPage
from support.lab.page import LabPage

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),  # a loaded machine needs a minute to load the first page
]


async def test_the_item_follows_the_shim(page: StatusPage) -> None:
    for state, reason, text in (
        ("resuming", "the connection broke", "resuming (the connection broke)"),
        ("unreachable", "no gateway answers", "kernel unreachable (no gateway answers)"),
        ("waiting", "no node has room", "waiting for a kernel (no node has room)"),
        ("connected", "", "connected"),
        ("gone", "node lost", "kernel gone (node lost)"),
    ):
        await page.tell(state=state, reason=reason)
        await page.says(f"Holdfast: {text}")
        await expect(page.item).to_have_attribute("data-state", state)
    # a state that lasts is spoken
    await expect(page.item.get_by_role("status")).to_have_text("Holdfast: kernel gone (node lost)")


async def test_what_comes_from_outside_is_text(page: StatusPage) -> None:
    evil = "<img src=x onerror=alert(1)>"
    await page.tell(state="waiting", reason=evil, gateway=evil)
    await page.says(f"Holdfast: waiting for a kernel ({evil})")
    await page.button.click()
    await expect(page.popup.locator("dd").nth(0)).to_have_text(evil)
    await expect(page.popup.locator("dd").nth(1)).to_have_text(evil)
    assert await page.item.locator("img").count() == 0
    assert await page.popup.locator("img").count() == 0
    assert not await page.page.dialogs()


async def test_one_toast_for_a_failover_of_three_notebooks(
    page: StatusPage, pictures: Path
) -> None:
    streams = [page.told, Told(kernel_id="kernel-1"), Told(kernel_id="kernel-2")]
    await page.lab.emit(*(replace(one, state="resuming") for one in streams))
    now = datetime.now(UTC)
    resumed = [
        replace(one, begun=now, ago=0.1 * number, resumed=(0.4 - 0.1 * number, 7, 0))
        for number, one in enumerate(streams)
    ]
    before = len(await page.page.toasts())
    await page.lab.emit(*resumed)
    text = "Holdfast: 3 kernels resumed in 0.4 s, 21 messages recovered, 0 lost"
    await expect(page.toasts).to_have_text([text])
    await page.screenshot(pictures / "toast-light.png")
    await expect(page.toasts).to_have_count(0, timeout=SOON)
    # An answer that tells of the same failover adds nothing.
    page.lab.answer_streams(*resumed)
    async with page.page.page.expect_response(lambda one: "/api/holdfast" in one.url):
        await page.hint()
    await page.tell(state="waiting")
    await page.says("Holdfast: waiting for a kernel")
    assert (await page.page.toasts())[before:] == [text]


async def test_a_loss_stays_on_the_screen(page: StatusPage) -> None:
    await page.tell(resumed=(1.24, 5, 3))
    text = "Holdfast: resumed in 1.2 s, 5 messages recovered, 3 lost. The cells show where."
    await expect(page.toasts).to_have_text([text])
    # One without losses, of another time, comes and goes meanwhile.
    await page.lab.emit(Told(kernel_id="another", ago=60, resumed=(0.1, 1, 0)))
    await expect(page.toasts).to_have_count(2)
    await expect(page.toasts).to_have_text([text], timeout=SOON)


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
async def test_the_popup_tells_the_rest(page: StatusPage, pictures: Path, theme: str) -> None:
    shade = theme.split()[-1].lower()
    await page.theme(theme)
    await page.tell(ago=300, resumed=(0.31, 14, 0))
    await page.tell(state="unreachable", reason="no gateway answers", ago=75)
    await page.says("Holdfast: kernel unreachable (no gateway answers)")
    await page.button.focus()
    await page.page.page.keyboard.press("Enter")
    await expect(page.popup).to_be_focused()
    await expect(page.popup).to_have_attribute("role", "dialog")
    await expect(page.popup).to_have_accessible_name("! Holdfast: kernel unreachable")
    await expect(page.button).to_have_attribute("aria-expanded", "true")
    for text in (
        "Holdfast keeps trying",
        "no gateway answers",
        *GATEWAYS,
        "(1 min ago)",
        "(5 min ago)resumed in 0.3 s, 14 messages recovered, 0 lost",
    ):
        await expect(page.popup).to_contain_text(text)
    await page.screenshot(pictures / f"popup-{shade}.png")
    # It follows while it is open.
    await page.tell()
    await expect(page.popup).to_contain_text("Holdfast: connected")
    await page.page.page.keyboard.press("Escape")
    await expect(page.popup).to_have_count(0)
    await expect(page.button).to_be_focused()
    await expect(page.button).to_have_attribute("aria-expanded", "false")
    # The mouse opens and closes it.
    await page.button.click()
    await expect(page.popup).to_be_visible()
    await page.screenshot(pictures / f"connected-{shade}.png")
    await page.button.click()
    await expect(page.popup).to_have_count(0)


async def test_the_item_is_that_of_the_document_in_front(page: StatusPage) -> None:
    await page.run("launcher:create")
    await expect(page.item).to_be_hidden()
    await page.run("console:create", kernelPreference={"name": "python3"}, activate=True)
    await page.page.page.locator(".jp-CodeConsole").wait_for()
    console = await page.front()
    assert console.kernel_id != page.told.kernel_id
    await page.lab.emit(replace(console, state="waiting", reason="starting"))
    await page.says("Holdfast: waiting for a kernel (starting)")
    await page.bring_to_front(0)
    await page.says("Holdfast: connected")


async def test_its_questions_are_no_activity_of_a_person(page: StatusPage) -> None:
    def is_question(request: Request) -> bool:
        return "/api/holdfast/streams" in request.url

    async with page.page.page.expect_request(is_question) as asked:
        await page.hint()
    assert "no_track_activity=1" in (await asked.value).url


async def test_a_line_that_breaks_is_not_called_connected(page: StatusPage, pictures: Path) -> None:
    await page.lab.line.cut()
    try:
        await page.says("Holdfast: no word from the notebook server")
        await page.screenshot(pictures / "no-word.png")
        # Meanwhile a failover, of which no event can reach the page.
        over = replace(page.told, begun=datetime.now(UTC), resumed=(0.5, 2, 0))
        page.lab.answer_streams(over)
        await page.lab.emit(replace(page.told, state="resuming"), over)
    finally:
        await page.lab.line.open()
    await page.says("Holdfast: connected", timeout=60_000)
    await page.wait_toasted("Holdfast: resumed in 0.5 s, 2 messages recovered, 0 lost")
    assert not await page.page.dialogs()


async def test_without_the_shim_there_is_nothing(lab: ScriptedLab, context: BrowserContext) -> None:
    lab.answer_absent()
    lab.write_notebook("plain.ipynb")
    answers: asyncio.Queue[int] = asyncio.Queue()

    def note(response: Response) -> None:
        if "/api/holdfast/streams" in response.url:
            answers.put_nowait(response.status)

    context.on("response", note)
    page = StatusPage(lab, await LabPage.open(context, lab.page_url("tree/plain.ipynb")))
    async with asyncio.timeout(30):
        assert await answers.get() == 404
    await expect(page.item).to_be_hidden()
    assert not await page.page.toasts()
    # It is there, and wakes up when there is a shim after all.
    stream = await page.front()
    lab.answer_streams(stream)
    await lab.emit(stream)
    await page.says("Holdfast: connected")
