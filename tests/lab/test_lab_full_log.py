"""A keeper's log that is too small for an absence: the cell shows the gap, and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from support.figures import keep
from support.lab.analysis import SideFiles, notebook
from support.lab.faults import FAULTS, Site
from support.lab.page import LabPage
from support.lab.server import LabServer, lab_cluster
from support.processes import wait_until

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]

#: A log that holds a part of one flood, and none of it for long.
TINY = "log_memory_bytes = 262144\nlog_disk_bytes = 1048576\n"
#: Lines of a flood, and bytes that go with each: together more than all sockets on the way hold.
LINES, BULK = 200, 200_000
#: Lines that are shown before the absence begins; the cell waits for it after them.
SHOWN = 20

_FLOOD = """\
import time
from pathlib import Path
from IPython.display import display
def bulk():
    return {{"application/x-bulk": "." * {bulk}}}

with open("ran.txt", "a") as file:
    file.write("{cell}\\n")
shown = display(bulk(), raw=True, display_id="bulk-{cell}")
for i in range({lines}):
    print("{cell} %d" % i, flush=True)
    if i >= {shown}:
        while not Path("away").exists():
            time.sleep(0.01)
        shown.update(bulk(), raw=True)
    with open("{cell}.steps", "a") as file:
        file.write(".")"""


def flood(cell: str) -> str:
    return _FLOOD.format(cell=cell, lines=LINES, bulk=BULK, shown=SHOWN)


CELLS = {
    "first": flood("first"),
    "second": flood("second"),
    "after": "print('and on', 1 + 1)",
}
GAP = re.compile(r"holdfast: (\d+) messages? lost: ")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LabServer]:
    """As in the other tests, with keepers that keep little."""
    cluster = lab_cluster(tmp_path_factory.mktemp("full"), launcher_toml=TINY)
    await asyncio.to_thread(cluster.start)
    made = LabServer(cluster)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        await asyncio.to_thread(cluster.stop)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("absence", ["all-proxies-away", "notebook-server-sigstop"])
async def test_the_gap_is_seen_and_the_cells_end(
    server: LabServer, context: BrowserContext, pictures: Callable[[str], Path], absence: str
) -> None:
    """Two floods while nobody reads: lines of both are lost, and the first one's answer."""
    folder = server.folder(absence)
    (folder / "flood.ipynb").write_text(json.dumps(notebook(CELLS)))
    lab = await LabPage.open(context, server.page_url(f"{absence}/flood.ipynb"))
    site, side = Site(server.cluster, server, lab), SideFiles(folder)
    await lab.run(0, 1)
    await lab.wait_output(0, f"first {SHOWN}")
    await lab.wait_delivered()
    await FAULTS[absence].begin(site)
    (folder / "away").touch()
    try:
        await asyncio.to_thread(
            wait_until, lambda: side.steps("second") == LINES, seconds=120, what="both floods"
        )
    finally:
        await FAULTS[absence].end(site)
    await lab.wait_ended(0, 1)
    await lab.run(2)
    await lab.wait_ran(2)
    await lab.wait_output(2, "and on 2")
    folder = pictures(f"full-log-{absence}")
    for cell in (0, 1):
        await lab.screenshot(folder / f"cell-{cell}.png", cell=cell)
    texts = [await lab.output(cell) for cell in (0, 1)]
    told = [check_lines(name, text) for name, text in zip(CELLS, texts, strict=False)]
    assert all(missing > 0 for missing, _ in told), "the log was not too small"
    assert await lab.dialogs() == []
    assert side.ran == ["first", "second"]
    prompts = await lab.prompts()
    assert prompts == ["[1]:", "[2]:", "[3]:"], "an answer in the lost one's place has its number"
    keep({"figure": f"JupyterLab, full log: {absence}", "told": told, "prompts": prompts})


def check_lines(cell: str, text: str) -> tuple[int, int]:
    """Never silently incomplete: at least as many messages are told lost as lines are missing.

    Returns how many lines are missing, and how many messages were told lost.
    """
    lines = [int(number) for number in re.findall(rf"{cell} (\d+)$", text, re.MULTILINE)]
    assert lines == sorted(set(lines)), "in order, once"
    if cell == "first":
        assert lines[:SHOWN] == list(range(SHOWN)), "what was shown before the absence"
    missing, lost = LINES - len(lines), sum(map(int, GAP.findall(text)))
    assert missing <= lost, f"{missing} lines are missing, {lost} messages told lost"
    return missing, lost
