"""@jupyterlab/services, as JupyterLab uses it, straight at a proxy while proxies come and go.

One address (HAProxy) in front of two proxies, unless a test says otherwise. The library gets no
help: it connects again when and how it does by itself. What it cannot do is asserted as well, so
that docs/howto/plain-clients.md stays true.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from frontends.conftest import Opener
from support.cluster import Cluster
from support.figures import keep, report
from support.front_end import Cell, FrontEnd
from support.haproxy import HAProxy
from support.printer import PrinterCell

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(240)]

KILLS = int(os.environ.get("HOLDFAST_KILLS", "3"))
LINES = 300
#: The keeper asks for proof after each batch, and again after 64 entries (serve/clients/plain).
UNPROVEN = 2 * 64


def check_cell(cell: Cell, printer: PrinterCell) -> int:
    """Every line, in order, one run, one end; the number of messages that came twice.

    What comes twice is the tail of what had been shown when the connection broke, and nothing
    else: the last unproven batch.
    """
    expected = [f"{printer.number}:{i}" for i in range(printer.lines)]
    assert cell.once.splitlines() == expected
    assert cell.stderr == ""
    assert cell.reply["status"] == "ok"
    assert [event["status"] for event in cell.of("done")] == ["ok"]
    assert printer.side_file.read_text().split().count(str(printer.number)) == 1
    ids = [event["id"] for event in cell.of("iopub")]
    doubled = cell.doubled
    for again in doubled:
        first, second = (n for n, name in enumerate(ids) if name == again)
        between = ids[first:second]
        # from its first coming to its second there is only what comes again, too
        assert len(set(between)) == second - first
        assert second - first <= UNPROVEN
    return len(doubled)


async def end_carrier(
    cluster: Cluster, balancer: HAProxy, end: FrontEnd, printer: PrinterCell, how: signal.Signals
) -> tuple[Cell, float]:
    """Run a cell and end the proxy that carries it in the middle; the cell and the silence."""
    cell = await end.execute(f"cell-{printer.number}", printer.code)
    await end.wait_text(cell, f"{printer.number}:30\n")
    carrier = await asyncio.to_thread(balancer.carrier)
    proxy = cluster.proxies[carrier]
    moment = time.monotonic()
    proxy.signal(how)
    await end.wait_done(cell)
    if how is signal.SIGSTOP:
        proxy.signal(signal.SIGCONT)
    else:
        await asyncio.to_thread(proxy.wait, 10)
        await asyncio.to_thread(cluster.start_proxy, carrier)
    await asyncio.to_thread(balancer.wait_states, "UP", "UP")
    return cell, cell.longest_silence(moment)


CASES = [
    pytest.param(signal.SIGKILL, {}, 1006, id="kill-9"),
    pytest.param(signal.SIGTERM, {}, 1012, id="drain"),
    pytest.param(signal.SIGSTOP, {}, 1006, id="frozen"),
    pytest.param(signal.SIGKILL, {"legacy": True}, 1006, id="kill-9-legacy-framing"),
    pytest.param(signal.SIGKILL, {"in_query": True}, 1006, id="kill-9-token-in-url"),
]


@pytest.mark.parametrize(("how", "options", "code"), CASES)
async def test_a_cell_goes_on_when_its_proxy_ends(
    cluster: Cluster,
    balancer: HAProxy,
    opened: Opener,
    tmp_path: Path,
    how: signal.Signals,
    options: dict[str, bool],
    code: int,
    request: pytest.FixtureRequest,
) -> None:
    tries = KILLS if not options else 1
    silences, doubled = [], 0
    async with opened(**options) as end:
        for number in range(tries):
            printer = PrinterCell(number, LINES, tmp_path / "side", interval=0.01)
            cell, silence = await end_carrier(cluster, balancer, end, printer, how)
            silences.append(silence)
            doubled += check_cell(cell, printer)
        assert end.connections == ["connected", *["connecting", "connected"] * tries]
        assert end.close_codes == [code] * tries
        assert "autorestarting" not in end.statuses
        assert end.of("unhandled") == []
    name = f"@jupyterlab/services, {request.node.callspec.id}"
    report(name, silences, lost=0, doubled=doubled)


async def test_an_input_is_asked_once_and_answered_over_a_kill(
    cluster: Cluster, balancer: HAProxy, opened: Opener
) -> None:
    async with opened() as end:
        cell = await end.execute("ask", "print('got', input('name? '))", answer=None)
        await end.wait_for(lambda: cell.of("stdin"), what="the question")
        carrier = await asyncio.to_thread(balancer.carrier)
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        await end.wait_for(lambda: len(end.connections) == 3, what="a second connection")
        await end.do("input", value="Ada")
        await end.wait_done(cell)
        assert cell.once == "got Ada\n"
        assert {event["id"] for event in cell.of("stdin")} == {cell.of("stdin")[0]["id"]}
        assert (await end.run("next", "print('next')")).text == "next\n"


async def test_an_input_asked_while_nobody_is_connected(
    cluster: Cluster, balancer: HAProxy, opened: Opener
) -> None:
    """The question waits at the keeper and comes with the next connection."""
    async with opened() as end:
        code = "import time; print('soon'); time.sleep(1); print('got', input())"
        cell = await end.execute("ask", code, answer="Ada")
        await end.wait_text(cell, "soon\n")
        for proxy in cluster.proxies:
            proxy.signal(signal.SIGKILL)
        for n, proxy in enumerate(cluster.proxies):
            await asyncio.to_thread(proxy.wait, 5)
            await asyncio.to_thread(cluster.start_proxy, n)
        await end.wait_done(cell)
        assert cell.once == "soon\ngot Ada\n"
        assert end.connections[-1] == "connected"


async def test_cells_written_while_disconnected_run_once_and_in_order(
    cluster: Cluster, balancer: HAProxy, opened: Opener, tmp_path: Path
) -> None:
    """All proxies gone: the library keeps them, and looks again after 10 to 30 s."""
    side = tmp_path / "side"
    async with opened() as end:
        await end.run("first", "pass")
        for proxy in cluster.proxies:
            proxy.signal(signal.SIGKILL)
        await end.wait_for(lambda: end.connections[-1] == "connecting", what="the loss")
        cells = [
            await end.execute(f"c{n}", f"with open({str(side)!r}, 'a') as f: f.write('{n}\\n')")
            for n in range(10)
        ]
        began = time.monotonic()
        for n, proxy in enumerate(cluster.proxies):
            await asyncio.to_thread(proxy.wait, 5)
            await asyncio.to_thread(cluster.start_proxy, n)
        for cell in cells:
            await end.wait_done(cell)
            assert cell.reply["status"] == "ok"
        assert side.read_text().split() == [str(n) for n in range(10)]
        assert end.connections == ["connected", "connecting", "connected"]
        keep(
            {"figure": "all proxies away, library comes back after", "s": time.monotonic() - began}
        )


async def test_a_restart_in_mid_cell_shows_no_crash_and_clears_the_cell(
    cluster: Cluster, balancer: HAProxy, opened: Opener
) -> None:
    """A restart that the user asked for is not shown as the kernel's death: on ``autorestarting``
    JupyterLab says in a dialog that the kernel appears to have died."""
    async with opened() as end:
        await end.run("before", "kept = 1")
        cell = await end.execute("long", "import time; print('runs'); time.sleep(60)")
        await end.wait_text(cell, "runs\n")
        await end.do("restart")
        await end.wait_done(cell)
        assert cell.of("cancelled"), "the library itself forgets what ran"
        after = await end.run("after", "print('kept' in globals())")
        assert after.text == "False\n"
        assert end.statuses.count("autorestarting") == 0
        assert end.statuses.count("restarting") == 1
        assert "dead" not in end.statuses


async def test_a_restart_while_the_proxy_dies_happens_once(
    cluster: Cluster, balancer: HAProxy, opened: Opener, tmp_path: Path
) -> None:
    """The library sends no request id: HAProxy does not repeat the call, the user may."""
    async with opened() as end:
        await end.run("before", "kept = 1")
        carrier = await asyncio.to_thread(balancer.carrier)
        call = await end.tell("restart")
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        answer = await end.wait_for(
            lambda: next((event for event in end.events if event.get("call") == call), None),
            what="an answer to the restart",
        )
        if answer["event"] == "failed":
            assert answer["http"] == 503, answer
            await end.do("restart")
        assert (await end.run("after", "print('kept' in globals())")).text == "False\n"
        assert "dead" not in end.statuses


async def test_a_crash_is_shown_once_and_does_not_loop(
    cluster: Cluster, balancer: HAProxy, opened: Opener
) -> None:
    """On ``restarting`` the library connects again by itself; the new connection must not say
    so again, not even after another proxy's death."""
    async with opened() as end:
        await end.run("before", "kept = 1")
        await end.execute("crash", "import os; os._exit(1)")
        await end.wait_for(lambda: "autorestarting" in end.statuses, what="the restart")
        await end.wait_connected()
        assert (await end.run("after", "print('kept' in globals())")).text == "False\n"
        carrier = await asyncio.to_thread(balancer.carrier)
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        await end.wait_for(lambda: end.connections[-1] == "connecting", what="the loss")
        assert (await end.run("again", "print('again')")).once == "again\n"
        assert end.statuses.count("autorestarting") == 1
        assert end.connections == ["connected", *["connecting", "connected"] * 2]


async def test_interrupt_over_a_kill(cluster: Cluster, balancer: HAProxy, opened: Opener) -> None:
    async with opened() as end:
        cell = await end.execute("long", "import time; print('runs'); time.sleep(60)")
        await end.wait_text(cell, "runs\n")
        carrier = await asyncio.to_thread(balancer.carrier)
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        await end.do("interrupt")
        await end.wait_done(cell)
        assert cell.reply["ename"] == "KeyboardInterrupt"


async def test_a_kernel_deleted_by_somebody_else_is_shown_as_dead(
    cluster: Cluster, balancer: HAProxy, opened: Opener
) -> None:
    async with opened() as end, opened() as other:
        await other.do("attach", url=balancer.url, token=cluster.token, kernel=end.kernel_id)
        cell = await end.execute("long", "import time; print('runs'); time.sleep(60)")
        await end.wait_text(cell, "runs\n")
        await other.do("shutdown")
        await end.wait_for(lambda: end.of("disposed"), what="the end")
        assert end.statuses[-1] == "dead"


async def test_a_token_in_the_url_is_refused_unless_switched_on(tmp_path: Path) -> None:
    """What a browser's front end meets at a proxy with the default settings."""
    from support.front_end import front_end

    alone = Cluster(tmp_path / "one", proxies=1)
    await asyncio.to_thread(alone.start)
    try:
        async with front_end(tmp_path / "node.log") as end:
            url = alone.proxy_urls[0]
            await end.do("start", url=url, token=alone.token, inQuery=True)
            await end.wait_for(lambda: end.of("error"), what="the refusal")
            assert "401" in end.of("error")[0]["message"]
            assert end.connections == []
    finally:
        await asyncio.to_thread(alone.stop)
