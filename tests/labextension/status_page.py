"""A JupyterLab page as far as the status extension shows on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from playwright.async_api import Locator, expect

from labextension.scripted_lab import ScriptedLab, Told
from support.lab.page import LabPage

_FRONT = """() => {
  const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel ? [kernel.id, kernel.clientId] : null;
}"""
_THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
_COMMAND = "([name, args]) => { window.jupyterapp.commands.execute(name, args); }"
#: Milliseconds: longer than an event takes, shorter than the time between two questions.
SOON = 10_000


class StatusPage:
    """One page; ``told`` is the stream of its notebook, connected."""

    def __init__(self, lab: ScriptedLab, page: LabPage) -> None:
        self.lab = lab
        self.page = page
        self.item: Locator = page.page.locator(".hf-StatusItem")
        self.button: Locator = self.item.locator("button")
        self.popup: Locator = page.page.locator(".hf-Details")
        self.toasts: Locator = page.page.locator(".Toastify__toast")
        self.told = Told(kernel_id="")

    async def refresh(self) -> None:
        """Forget what the last test did: the notebook is in front and connected."""
        await self.bring_to_front(0)
        await self.page.page.keyboard.press("Escape")
        await self.page.page.evaluate(_COMMAND, ["apputils:dismiss-notification", {}])
        self.told = await self.front()
        self.lab.answer_streams(self.told)
        await self.lab.emit(self.told)
        await self.says("Holdfast: connected")
        for close in await self.toasts.get_by_label("close").all():
            await close.click()
        await expect(self.toasts).to_have_count(0, timeout=SOON)

    async def front(self) -> Told:
        """The stream of the document in front, connected since now."""
        found = await self.page.page.wait_for_function(_FRONT)
        kernel_id, session_id = await found.json_value()
        return Told(kernel_id=kernel_id, session_id=session_id)

    async def tell(self, **changes: object) -> None:
        """The shim emits an event for the notebook: ``told`` with these changes."""
        await self.lab.emit(replace(self.told, begun=datetime.now(UTC), **changes))  # type: ignore[arg-type]  # names are checked by replace

    async def says(self, text: str, *, timeout: float = SOON) -> None:
        """The status item shows exactly this."""
        words = self.button.locator("span").nth(1)
        await expect(words).to_have_text(text, timeout=timeout)
        await expect(self.item).to_be_visible()

    async def wait_toasted(self, text: str, seconds: float = 10) -> None:
        """Wait until there was a toast with this text, which may have gone again."""
        async with asyncio.timeout(seconds):
            while text not in await self.page.toasts():
                await self.page.page.wait_for_function(
                    "text => window.holdfastSeen.toasts.includes(text)", arg=text
                )

    async def theme(self, name: str) -> None:
        await self.page.page.evaluate(_THEME, name)
        await expect(self.page.page.locator("body")).to_have_attribute(
            "data-jp-theme-name", name, timeout=SOON
        )

    async def run(self, command: str, **arguments: object) -> None:
        """One of JupyterLab's own commands, without waiting for it."""
        await self.page.page.evaluate(_COMMAND, [command, arguments])

    async def bring_to_front(self, tab: int) -> None:
        """Click on a tab of the main area."""
        await self.page.page.locator("#jp-main-dock-panel .lm-TabBar-tab").nth(tab).click()

    async def hint(self) -> None:
        """What makes the extension ask: the browser says that it is online."""
        await self.page.page.evaluate("window.dispatchEvent(new Event('online'))")

    async def screenshot(self, file: Path) -> None:
        await self.page.screenshot(file)
