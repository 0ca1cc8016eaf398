"""One notebook in one JupyterLab page: what a person does with it, and what they see.

Actions are keys and clicks. What is on the screen is read from the screen; only what a screen
does not show (is everything saved, is the websocket up) is asked of JupyterLab's own objects.
The module knows nothing of clusters and faults.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, WebSocket

#: Seconds for what takes one or two on an idle machine.
PATIENCE = 120.0
_WATCHER = (Path(__file__).parent / "watcher.js").read_text()
_PANEL = """
  const panel = [...window.jupyterapp.shell.widgets("main")].find(
    (widget) => (widget.context?.path ?? "").endsWith(".ipynb"));
"""
_DONE = re.compile(r"\[\d+\]:?")


@dataclass(frozen=True)
class Websocket:
    """One websocket to a kernel that the page opened, and whether it has closed."""

    url: str
    closed: bool = False


class LabPage:
    """A browser page with one notebook open in JupyterLab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        #: Kernel websockets in the order in which the page opened them.
        self.websockets: list[Websocket] = []
        self._closed = asyncio.Event()
        #: What the page wrote to its console, and alerts of the browser itself.
        self.console: list[str] = []
        self.alerts: list[str] = []
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.console.append(f"exception: {error}"))
        page.on("websocket", self._note_websocket)
        page.on("dialog", self._note_alert)

    def __repr__(self) -> str:
        return f"<LabPage {self.page.url.partition('?')[0]} {len(self.websockets)} websockets>"

    @classmethod
    async def open(cls, context: BrowserContext, url: str) -> LabPage:
        """Load the notebook at ``url`` and wait until its kernel is connected and idle."""
        page = await context.new_page()
        await page.add_init_script(_WATCHER)
        lab = cls(page)
        await page.goto(url, timeout=PATIENCE * 1000)
        await page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=PATIENCE * 1000)
        await lab.wait_connected()
        await page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(
            timeout=PATIENCE * 1000
        )
        return lab

    # What a person does.

    async def run(self, *cells: int) -> None:
        """Ctrl+Enter in each of these code cells (counted from 0), without waiting for any."""
        for number in cells:
            await self._cell(number).locator(".cm-content").click()
            await self.page.keyboard.press("Control+Enter")

    async def answer(self, text: str) -> None:
        """Type ``text`` into the box of `input()`, Enter."""
        box = self.page.locator("input.jp-Stdin-input")
        assert await box.count() == 1, "one question, several boxes"
        await box.fill(text)
        await box.press("Enter")

    async def push_slider(self, steps: int) -> None:
        """Move the slider's handle by that many presses of the right arrow."""
        handle = self.page.locator(".jp-OutputArea .noUi-handle").first
        await handle.wait_for(timeout=PATIENCE * 1000)
        await handle.focus()
        for _ in range(steps):
            await handle.press("ArrowRight")

    async def save(self) -> None:
        """Ctrl+S, and wait until there is nothing unsaved."""
        await self.page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
        await self.page.keyboard.press("Escape")
        await self.page.keyboard.press("Control+s")
        await self._wait_for(f"() => {{ {_PANEL} return !panel.context.model.dirty; }}")

    # What a person sees. As `textContent`: what is scrolled away has no `innerText`.

    async def prompts(self) -> list[str]:
        """`[1]:`, `[*]:` or `[ ]:` beside each code cell."""
        found = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea .jp-InputPrompt")
        return [text.strip() for text in await found.all_text_contents()]

    async def wait_ran(self, *cells: int, seconds: float = PATIENCE) -> None:
        """Wait until each of these cells has a number where `[*]` was."""
        await self._wait_prompts(cells, r"\[\d+\]", seconds)

    async def wait_ended(self, *cells: int, seconds: float = PATIENCE) -> None:
        """Wait until none of these cells is at `[*]`, whatever became of them."""
        await self._wait_prompts(cells, r"\[[\d ]+\]", seconds)

    async def _wait_prompts(self, cells: Sequence[int], pattern: str, seconds: float) -> None:
        for number in cells:
            prompt = self._cell(number).locator(".jp-InputArea .jp-InputPrompt")
            await self.page.wait_for_function(
                "([node, pattern]) => new RegExp(pattern).test(node.textContent)",
                arg=[await prompt.element_handle(), pattern],
                timeout=seconds * 1000,
            )

    async def wait_question(self, seconds: float = PATIENCE) -> None:
        """Wait for the box of `input()`."""
        await self.page.locator("input.jp-Stdin-input").wait_for(timeout=seconds * 1000)

    async def output(self, cell: int) -> str:
        """The text of a cell's outputs, as shown."""
        return "\n".join(
            await self._cell(cell).locator(".jp-OutputArea-output").all_text_contents()
        )

    async def wait_output(self, cell: int, text: str, seconds: float = PATIENCE) -> None:
        """Wait until the outputs of ``cell`` show ``text``."""
        shown = self._cell(cell).locator(".jp-OutputArea-output", has_text=text)
        await shown.first.wait_for(timeout=seconds * 1000)

    async def widgets(self) -> int:
        """How many sliders are on the screen."""
        return await self.page.locator(".jp-OutputArea .widget-slider").count()

    async def status_text(self) -> str:
        """What the status bar says, items joined by ` | `."""
        items = self.page.locator("#jp-main-statusbar .jp-StatusBar-Item")
        return " | ".join(text.strip() for text in await items.all_text_contents() if text.strip())

    async def wait_status(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until an item of the status bar says ``text``."""
        bar = self.page.locator("#jp-main-statusbar", has_text=text)
        await bar.wait_for(timeout=seconds * 1000)

    async def indicator(self) -> str:
        """The state that the notebook's circle shows: idle, busy, disconnected …"""
        circle = self.page.locator(".jp-Notebook-ExecutionIndicator")
        return await circle.first.get_attribute("data-status") or ""

    async def dialogs(self) -> list[str]:
        """The text of every dialog that there ever was on this page."""
        seen: dict[str, list[str]] = await self.page.evaluate("window.holdfastSeen")
        return seen["dialogs"] + self.alerts

    async def toasts(self) -> list[str]:
        """The text of every notification that popped up."""
        seen: dict[str, list[str]] = await self.page.evaluate("window.holdfastSeen")
        return seen["toasts"]

    async def screenshot(self, file: Path, *, cell: int | None = None) -> None:
        """What is on the screen now; with ``cell``, scrolled to it."""
        if cell is not None:
            await self._cell(cell).scroll_into_view_if_needed()
        await self.page.screenshot(path=file)

    # What the screen does not show.

    async def connection(self) -> str:
        """What JupyterLab says of its websocket: connected, connecting or disconnected."""
        said: Any = await self.page.evaluate(
            f"() => {{ {_PANEL} return panel?.sessionContext.session?.kernel?.connectionStatus; }}"
        )
        return str(said)

    async def wait_connected(self, seconds: float = PATIENCE) -> None:
        kernel = "panel?.sessionContext.session?.kernel?.connectionStatus"
        await self._wait_for(f"() => {{ {_PANEL} return {kernel} === 'connected'; }}", seconds)

    async def wait_dropped(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until the first ``count`` kernel websockets that the page opened have closed."""
        async with asyncio.timeout(seconds):
            while not all(websocket.closed for websocket in self.websockets[:count]):
                self._closed.clear()
                await self._closed.wait()

    async def wait_delivered(self) -> None:
        """Wait until the kernel has answered on its control channel, however busy it is: then
        everything that the page sent before has reached the keeper."""
        ask = "{ seq: 0, type: 'request', command: 'debugInfo', arguments: {} }"
        kernel = "panel.sessionContext.session.kernel"
        await self.page.evaluate(
            f"async () => {{ {_PANEL} await {kernel}.requestDebug({ask}).done; }}"
        )

    async def _wait_for(self, condition: str, seconds: float = PATIENCE) -> None:
        await self.page.wait_for_function(condition, timeout=seconds * 1000)

    def _cell(self, number: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(f"{message.type}: {message.text}")

    async def _note_alert(self, dialog: Dialog) -> None:
        """One of the browser itself, which would freeze the page until it is answered."""
        self.alerts.append(dialog.message)
        await dialog.dismiss()

    def _note_websocket(self, websocket: WebSocket) -> None:
        if "/channels" not in websocket.url:
            return
        number = len(self.websockets)
        self.websockets.append(Websocket(websocket.url))

        def closed(_: WebSocket) -> None:
            self.websockets[number] = Websocket(websocket.url, closed=True)
            self._closed.set()

        websocket.on("close", closed)


def numbered(prompts: list[str]) -> list[int]:
    """The execution counts of prompts. Raises AssertionError for `[*]` and `[ ]`."""
    for prompt in prompts:
        assert _DONE.fullmatch(prompt), f"a cell is at {prompt!r}: {prompts}"
    return [int(prompt.strip("[]:")) for prompt in prompts]
