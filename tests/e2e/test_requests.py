"""What the user asks for around a failure: requests, input, interrupt, restart, comms, size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.cluster import Cluster, JupyterServer
from support.notebook import notebook
from support.processes import wait_until

pytestmark = pytest.mark.e2e

COMM_ECHO = """
def _opened(comm, message):
    def _got(message):
        back = [bytes(b)[::-1] for b in message['buffers']]
        comm.send({'n': message['content']['data']['n']}, buffers=back)
    comm.on_msg(_got)
get_ipython().kernel.comm_manager.register_target('echo', _opened)
"""


@asynccontextmanager
async def all_proxies_away(cluster: Cluster) -> AsyncIterator[None]:
    """Both proxies are dead inside, and back (ready) after."""
    for proxy in cluster.proxies:
        proxy.kill()
    try:
        yield
    finally:
        for n in range(len(cluster.proxies)):
            await asyncio.to_thread(cluster.start_proxy, n)


async def test_requests_of_an_outage_arrive_once_and_in_order(
    cluster: Cluster, server: JupyterServer
) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run("order = []")
        async with all_proxies_away(cluster):
            sent = [await book.execute(f"order.append({n}); print({n})") for n in range(40)]
        for n, execution in enumerate(sent):
            await execution.wait_done()
            assert execution.text == f"{n}\n"
            assert execution.reply_content["status"] == "ok"
        assert (await book.run("print(order == list(range(40)))")).text == "True\n"
        await book.rest("DELETE", "")


async def test_input_waits_across_an_outage(cluster: Cluster, server: JupyterServer) -> None:
    async with notebook(server.url, server.token) as book:
        execution = await book.execute(
            "name = input('who? '); print('hello', name)", allow_stdin=True
        )
        await execution.wait_for(lambda: bool(execution.of_type("input_request")))
        async with all_proxies_away(cluster):
            request = execution.of_type("input_request")[0]
            await book.send(
                "input_reply",
                {"status": "ok", "value": "you"},
                channel="stdin",
                parent=request.header_dict,
            )
        await execution.wait_done()
        assert execution.text == "hello you\n"
        assert len(execution.of_type("input_request")) == 1
        await book.rest("DELETE", "")


async def test_interrupt_right_after_an_outage_stops_the_running_cell(
    cluster: Cluster, server: JupyterServer
) -> None:
    """The endless cell ran all along; those that were sent in the outage are not stopped."""
    async with notebook(server.url, server.token) as book:
        await book.run("import time")
        endless = await book.execute("print('in'); time.sleep(600)")
        await endless.wait_text("in")
        async with all_proxies_away(cluster):
            after = [await book.execute(f"print({n})") for n in range(3)]
        status, _ = await book.rest("POST", "/interrupt")
        assert status == 204
        await endless.wait_done()
        assert endless.reply_content["ename"] == "KeyboardInterrupt"
        for n, execution in enumerate(after):
            assert (await execution.wait_done()).text == f"{n}\n"
        await book.rest("DELETE", "")


async def test_interrupt_does_not_overtake_the_cell_of_an_outage(
    cluster: Cluster, server: JupyterServer
) -> None:
    """Cell and interrupt both wait for a proxy; the interrupt waits for the cell to begin."""
    async with notebook(server.url, server.token) as book:
        await book.run("import time")
        async with all_proxies_away(cluster):
            endless = await book.execute("time.sleep(600)")
            interrupt = asyncio.create_task(book.rest("POST", "/interrupt"))
        after = await book.execute("print('after')")
        status, body = await interrupt
        assert status == 204, body
        await endless.wait_done()
        assert endless.reply_content["ename"] == "KeyboardInterrupt"
        assert (await after.wait_done()).text == "after\n"
        await book.rest("DELETE", "")


async def test_restart_across_an_outage_restarts_once(
    cluster: Cluster, server: JupyterServer
) -> None:
    async with notebook(server.url, server.token) as book:
        before = (await book.run("import os; print(os.getpid())")).text
        carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
        restart = asyncio.create_task(book.rest("POST", "/restart"))
        # what a restart that was asked for says; "restarting" would be a crash
        await book.wait_status("starting")
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        status, model = await restart
        assert status == 200, model
        await asyncio.to_thread(cluster.start_proxy, carrier)
        first = await book.run("import os; print(os.getpid())")
        assert before != first.text
        assert first.reply_content["execution_count"] == 1
        assert "restarting" not in book.states()
        # one word of the keeper's and one of the new kernel's, which it may have said unheard
        assert book.states().count("starting") <= 2
        await book.rest("DELETE", "")


async def test_comm_messages_with_binary_buffers_both_ways(
    cluster: Cluster, server: JupyterServer
) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run(COMM_ECHO)
        await book.send("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
        payloads = [bytes([n]) * 3 + bytes(range(256)) * 400 for n in range(20)]
        for n, payload in enumerate(payloads):
            if n == 10:
                carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
                await asyncio.to_thread(cluster.proxies[carrier].kill)
            await book.send("comm_msg", {"comm_id": "c1", "data": {"n": n}}, buffers=(payload, b""))
        await book.run("pass")
        await asyncio.to_thread(cluster.start_proxy, carrier)
        echoes = [
            (message.content_dict()["data"]["n"], message.buffers)
            for _, message in book.everything
            if message.msg_type == "comm_msg"
        ]
        assert echoes == [(n, (payload[::-1], b"")) for n, payload in enumerate(payloads)]
        await book.rest("DELETE", "")


async def test_a_64_mb_output_lets_an_interrupt_pass(
    cluster: Cluster, server: JupyterServer
) -> None:
    """The interrupt reaches the kernel while the output is still on its way to the browser."""
    said = cluster.base / "said-64-mb"
    code = (
        "from IPython.display import display\n"
        "import time\n"
        "display({'application/x-big': 'x' * (64 << 20)}, raw=True)\n"
        f"open({str(said)!r}, 'w').close()\n"
        "time.sleep(600)\n"
    )
    async with notebook(server.url, server.token) as book:
        execution = await book.execute(code)
        await asyncio.to_thread(
            wait_until, said.exists, seconds=30, what="the kernel to have said it"
        )
        status, _ = await book.rest("POST", "/interrupt")
        assert status == 204
        await execution.wait_done()
        (big,) = execution.of_type("display_data")
        assert len(big.content_dict()["data"]["application/x-big"]) == 64 << 20
        assert execution.reply_content["ename"] == "KeyboardInterrupt"
        await book.rest("DELETE", "")


async def test_two_notebooks_on_one_kernel(cluster: Cluster, server: JupyterServer) -> None:
    async with (
        notebook(server.url, server.token) as one,
        notebook(server.url, server.token, kernel_id=one.kernel_id) as two,
    ):
        # A new session begins at the log's head, and an accepted websocket is not one yet: as
        # every front end does, ask something before counting on what others do.
        await two.run("None")
        first = await one.execute(
            "import time\nfor i in range(200): print(i, flush=True); time.sleep(.005)"
        )
        await first.wait_text("20\n")
        carrier = await asyncio.to_thread(cluster.carrier, server.process.pid)
        await asyncio.to_thread(cluster.proxies[carrier].kill)
        await first.wait_done()
        second = await two.run("print('two')")
        await asyncio.to_thread(cluster.start_proxy, carrier)
        lines = [str(i) for i in range(200)]
        assert first.text.split() == lines
        seen_by_two = "".join(
            message.content_dict()["text"]
            for _, message in two.everything
            if message.msg_type == "stream" and message.parent_id == first.msg_id
        )
        assert seen_by_two.split() == lines
        assert not any(m.msg_type == "execute_reply" for m in two.stray)
        assert second.text == "two\n"
        await one.rest("DELETE", "")
