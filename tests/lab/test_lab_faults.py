"""JupyterLab in a browser, and everything between it and the kernel failing in mid-cell.

Each test works through the same notebook as an undisturbed run did, and ends with the same saved
file: no dialog, no `[*]` left, each cell run once. See docs/design/promises.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from support.figures import keep
from support.lab.analysis import INTERVAL, Analysis
from support.lab.browser import VIEWPORT
from support.lab.faults import FAULTS, Site
from support.lab.page import LabPage, numbered
from support.lab.saved import Comparison, compare, load
from support.lab.server import LabServer
from support.lab.sitting import STATIONS, Sitting

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]

#: Seconds that what is away stays away, by the kernel's own work; the promises say 60.
OUTAGE = float(os.environ.get("HOLDFAST_OUTAGE", "4"))
#: Proxies that are killed under one notebook after the other.
KILLS = int(os.environ.get("HOLDFAST_KILLS", "5"))
#: Lines that the text cell prints before and after an outage. An outage of 2 s fits into SHORT.
MARGIN = 25
SHORT = Analysis()
LONG = Analysis(lines=max(SHORT.lines, int(OUTAGE / INTERVAL) + 2 * MARGIN))
#: What a test may take where many others share the machine; alone it takes a tenth.
LIMIT = 900 + 6 * OUTAGE

Sit = Callable[..., Awaitable["Outcome"]]


@dataclass(frozen=True)
class Outcome:
    """What one sitting left: the page, the saved file, what the cells noted."""

    sitting: Sitting
    saved: dict[str, Any]

    @property
    def lab(self) -> LabPage:
        return self.sitting.site.lab

    async def check(self, analysis: Analysis) -> None:
        """What holds after any sitting."""
        cells = list(analysis.cells)
        assert self.sitting.side.ran == cells, "each cell once, in order"
        assert numbered(await self.lab.prompts()) == list(range(1, len(cells) + 1))
        assert await self.lab.dialogs() == []
        await self.lab.wait_status("Holdfast: connected")
        assert await self.lab.indicator() == "idle"
        assert await self.lab.widgets() == 1
        assert self.sitting.side.slider[-1] == 7
        counts = [cell["execution_count"] for cell in self.saved["cells"]]
        assert counts == list(range(1, len(cells) + 1))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sit(
    browser: Browser, server: LabServer, pictures: Callable[[str], Path]
) -> AsyncIterator[Sit]:
    """Work through a new notebook: `await sit("name", analysis, context=…, strikes=…)`."""

    async def one(
        name: str, analysis: Analysis, context: BrowserContext, **options: Any
    ) -> Outcome:
        notebook = analysis.write(server.folder(name))
        url = server.page_url(f"{name}/{notebook.name}")
        lab = await LabPage.open(context, url)
        site = Site(server.cluster, server, lab)
        sitting = Sitting(site, analysis, notebook, pictures(name), **options)
        try:
            await sitting.work()
        except BaseException:
            await tell(sitting)
            raise
        outcome = Outcome(sitting, load(notebook))
        await outcome.check(analysis)
        return outcome

    yield one


async def tell(sitting: Sitting) -> None:
    """What the page showed when a sitting failed."""
    lab = sitting.site.lab
    await lab.screenshot(sitting.pictures / "failed.png")
    print(f"\nprompts {await lab.prompts()}; connection {await lab.connection()}")
    print(f"dialogs {await lab.dialogs()}; toasts {await lab.toasts()}")
    print(f"status bar {await lab.status_text()!r}; websockets {lab.websockets}")
    print("\n".join(lab.console[-30:]))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def undisturbed(
    browser: Browser, sit: Sit
) -> AsyncIterator[Callable[[Analysis], Awaitable[dict[str, Any]]]]:
    """The notebook as it is saved when nothing fails; each analysis is worked through once."""
    known: dict[Analysis, dict[str, Any]] = {}

    async def one(analysis: Analysis) -> dict[str, Any]:
        if analysis not in known:
            context = await browser.new_context(viewport=VIEWPORT)
            try:
                outcome = await sit(f"undisturbed-{analysis.lines}", analysis, context)
            finally:
                await context.close()
            known[analysis] = outcome.saved
        return known[analysis]

    yield one


Undisturbed = Callable[[Analysis], Awaitable[dict[str, Any]]]


def judge(expected: dict[str, Any], outcome: Outcome, strikes: Mapping[str, str]) -> Comparison:
    """Compare with the undisturbed notebook; doubles only where the browser's leg broke."""
    comparison = compare(expected, outcome.saved)
    assert comparison.differences == []
    allowed = any(FAULTS[name].doubles for name in strikes.values())
    assert allowed or comparison.doubled == 0, comparison.doubles
    keep(
        {
            "figure": "JupyterLab: " + ", ".join(dict.fromkeys(strikes.values())),
            "strikes": len(strikes),
            "lost": 0,
            "doubled": comparison.doubled,
            "where": comparison.doubles,
            "websockets": len(outcome.lab.websockets),
        }
    )
    return comparison


@pytest.mark.timeout(LIMIT)
async def test_undisturbed_twice_is_the_same(
    undisturbed: Undisturbed, sit: Sit, context: BrowserContext
) -> None:
    """Otherwise no comparison below would mean anything."""
    outcome = await sit("undisturbed-again", SHORT, context)
    comparison = compare(await undisturbed(SHORT), outcome.saved)
    assert comparison == Comparison({}, [])


@pytest.mark.timeout(LIMIT * max(1, KILLS // len(STATIONS)))
async def test_carrying_proxy_killed_ended_frozen(
    undisturbed: Undisturbed, sit: Sit, browser: Browser
) -> None:
    """SIGKILL, SIGTERM and SIGSTOP in turn, at every station, as often as asked."""
    signals = cycle(["proxy-sigkill", "proxy-sigterm", "proxy-sigstop"])
    for number in range(0, KILLS, len(STATIONS)):
        strikes = dict(zip(STATIONS, islice(signals, len(STATIONS)), strict=True))
        context = await browser.new_context(viewport=VIEWPORT)
        try:
            outcome = await sit(f"proxy-killed-{number}", SHORT, context, strikes=strikes)
            judge(await undisturbed(SHORT), outcome, strikes)
            # The browser's own websocket never noticed.
            assert len(outcome.lab.websockets) == 1
        finally:
            await context.close()


@pytest.mark.timeout(LIMIT)
async def test_all_proxies_away(
    undisturbed: Undisturbed, sit: Sit, context: BrowserContext
) -> None:
    """For a while in mid-cell, and while the slider is moved and the question is answered."""
    strikes = dict.fromkeys(("text", "slider", "question"), "all-proxies-away")
    outcome = await sit("all-proxies-away", LONG, context, strikes=strikes, outage=OUTAGE)
    judge(await undisturbed(LONG), outcome, strikes)
    assert len(outcome.lab.websockets) == 1


@pytest.mark.timeout(LIMIT)
async def test_browser_connection_dropped(
    undisturbed: Undisturbed, sit: Sit, context: BrowserContext
) -> None:
    strikes = dict.fromkeys(STATIONS, "connection-dropped")
    outcome = await sit("connection-dropped", SHORT, context, strikes=strikes)
    judge(await undisturbed(SHORT), outcome, strikes)
    assert len(outcome.lab.websockets) > len(STATIONS)


@pytest.mark.timeout(LIMIT)
async def test_browser_offline(undisturbed: Undisturbed, sit: Sit, context: BrowserContext) -> None:
    strikes = {"text": "browser-offline"}
    outcome = await sit("browser-offline", LONG, context, strikes=strikes, outage=OUTAGE)
    judge(await undisturbed(LONG), outcome, strikes)
    assert len(outcome.lab.websockets) > 1


@pytest.mark.timeout(LIMIT)
async def test_notebook_server_killed_and_restarted(
    undisturbed: Undisturbed, sit: Sit, context: BrowserContext
) -> None:
    strikes = {"text": "notebook-server-sigkill"}
    outcome = await sit("notebook-server-sigkill", SHORT, context, strikes=strikes)
    judge(await undisturbed(SHORT), outcome, strikes)
    assert len(outcome.lab.websockets) > 1
