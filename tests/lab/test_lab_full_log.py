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
from support.lab.page import LabPage, numbered
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
    """Two floods while nobody reads: the first one's answer is lost too, the second one's not."""
    folder = server.folder(absence)
    (folder / "flood.ipynb").write_text(json.dumps(notebook(CELLS)))
    lab = await LabPage.open(context, server.page_url(f"{absence}/flood.ipynb"))
    site, side = Site(server.cluster, server, lab), SideFiles(folder)
    await lab.run(0, 1)
    await lab.wait_output(0, f"first {SHOWN}")
    await FAULTS[absence].begin(site)
    (folder / "away").touch()
    try:
        await asyncio.to_thread(
            wait_until, lambda: side.steps("second") == LINES, seconds=60, what="both floods"
        )
    finally:
        await FAULTS[absence].end(site)
    await lab.wait_ran(0, 1)
    await lab.run(2)
    await lab.wait_ran(2)
    await lab.wait_output(2, "and on 2")
    folder = pictures(f"full-log-{absence}")
    texts = [await lab.output(cell) for cell in (0, 1)]
    for cell in (0, 1):
        await lab.screenshot(folder / f"cell-{cell}.png", cell=cell)
    for name, text in zip(("first", "second"), texts, strict=True):
        check_lines(name, text)
    assert "HoldfastGap" in texts[0], "the first one's answer was lost"
    assert "HoldfastGap" not in texts[1], "the second one's was not"
    assert numbered(await lab.prompts())[1:] == [2, 3]
    assert await lab.dialogs() == []
    assert side.ran == ["first", "second"]
    lost = [int(GAP.search(text)[1]) for text in texts]  # type: ignore[index]  # checked above
    keep({"figure": f"JupyterLab, full log: {absence}", "messages_lost_as_shown": lost})


def check_lines(cell: str, text: str) -> None:
    """The gap is told, and what is there is in order, once, and never silently incomplete."""
    assert GAP.search(text), text[-2000:]
    lines = [int(number) for number in re.findall(rf"^{cell} (\d+)$", text, re.MULTILINE)]
    assert lines == sorted(set(lines))
    assert len(lines) < LINES, "the log was not too small"
    before, _, _ = text.partition("holdfast:")
    shown = [int(number) for number in re.findall(rf"^{cell} (\d+)$", before, re.MULTILINE)]
    assert shown == list(range(len(shown))), "what came before the gap has no hole"
