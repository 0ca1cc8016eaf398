"""The kernel side against a real ipykernel, shared by the tests of this file."""

from __future__ import annotations

import ast
import asyncio
import os
import stat
import time
from pathlib import Path

import psutil
import pytest

from holdfast_protocol.errors import InvalidState

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_started_kernel_is_idle_named_and_answers(ipython, cell):
    info = ipython.host.info()
    assert (info.incarnation, info.execution_state, info.reason) == (1, "idle", None)
    assert psutil.pid_exists(info.pid)
    assert ipython.recorder.kinds() == [("ready", 1)]
    request = cell("print('hello')")
    reply = await ipython.run(request)
    assert reply["status"] == "ok"
    assert ipython.recorder.text(request) == "hello\n"
    first = ipython.recorder.outputs(request, "status")[0]
    assert first.header_dict["session"] == info.kernel_session


async def test_the_raised_mark_leaves_no_trace(ipython, cell):
    """No nudge, no welcome, no name, no history, and the first cell was number 1."""
    request = cell("[' '.join(n for n in dir() if n[0] != '_'), In[:-1]]")
    reply = await ipython.run(request)
    assert reply["execution_count"] == 2  # the test before ran number 1
    (result,) = ipython.recorder.outputs(request, "execute_result")
    assert ast.literal_eval(result.content_dict()["data"]["text/plain"]) == [
        "In Out exit get_ipython open quit",
        ["", "print('hello')"],
    ]
    assert ipython.host._current.highwater_raised
    for said in ipython.recorder.said:
        if said[0] in ("published", "answered"):
            assert not str(said[-1].parent_dict.get("session", "")).startswith("holdfast")
            assert said[-1].msg_type != "iopub_welcome"
    ipython.recorder.check_wire_forms()


async def test_a_burst_is_complete_though_the_loop_is_blocked(ipython, cell):
    """20,000 outputs; the keeper's loop stands still for 1.5 s in the middle."""
    code = (
        "kernel = get_ipython().kernel\n"
        "send, parent = kernel.session.send, kernel.get_parent()\n"
        "for i in range(20000):\n"  # display() itself waits for stdout each time
        "    data = {'data': {'text/plain': str(i) + 'x' * 100}, 'metadata': {}}\n"
        "    send(kernel.iopub_socket, 'display_data', data, parent)\n"
    )
    request = cell(code)
    ipython.host.send("one", request)
    await ipython.recorder.until(
        lambda: len(ipython.recorder.outputs(request, "display_data")) >= 50
    )
    time.sleep(1.5)  # noqa: ASYNC251 - to block the loop is the test
    await ipython.recorder.done(request, timeout=60)
    texts = [
        m.content_dict()["data"]["text/plain"].rstrip("x")
        for m in ipython.recorder.outputs(request, "display_data")
    ]
    assert texts == [str(i) for i in range(20000)]
    assert not [said for said in ipython.recorder.kinds() if said[0] == "lost"]


async def test_two_sessions_get_their_own_answers(ipython, cell):
    ipython.host.open_session("two")
    ipython.host.open_session("two")
    mine, other = cell("1"), cell("2")
    ipython.host.send("one", mine)
    ipython.host.send("two", other)
    await ipython.recorder.done(mine)
    await ipython.recorder.done(other)
    answers = {
        session: message.parent_id
        for request in (mine, other)
        for session, message in ipython.recorder.about(request)
        if session != "iopub"
    }
    assert answers == {"one": mine.msg_id, "two": other.msg_id}
    ipython.host.close_session("two")
    ipython.host.close_session("two")
    with pytest.raises(InvalidState):
        ipython.host.send("two", cell("3"))


async def test_input_of_a_session_that_was_opened_just_now(ipython, cell, request_of):
    ipython.host.open_session("fresh")
    request = cell("print('got', input('name? '))")
    ipython.host.send("fresh", request)  # at once: stdin must be connected before shell
    recorder = ipython.recorder

    def asked():
        return [m for who, m in recorder.about(request) if m.msg_type == "input_request"]

    (question,) = await recorder.until(asked)
    assert question.channel == "stdin"
    answer = request_of(
        "input_reply",
        {"status": "ok", "value": "ada"},
        channel="stdin",
        parent=question.header_dict,
    )
    ipython.host.send("fresh", answer)
    await recorder.done(request)
    assert recorder.text(request).endswith("got ada\n")
    ipython.host.close_session("fresh")


async def test_binary_comm_buffers_travel_both_ways(ipython, cell, request_of):
    blob = os.urandom(300_000)
    await ipython.run(
        cell(
            "def opened(comm, message):\n"
            "    comm.on_msg(lambda m: comm.send({'n': len(m['buffers'])}, buffers="
            "[bytes(b)[::-1] for b in m['buffers']]))\n"
            "get_ipython().kernel.comm_manager.register_target('echo', opened)"
        )
    )
    opening = request_of("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
    ipython.host.send("one", opening)
    message = request_of(
        "comm_msg", {"comm_id": "c1", "data": {}}, buffers=(blob, b"", b"\x00\xff")
    )
    ipython.host.send("one", message)
    (back,) = await ipython.recorder.until(lambda: ipython.recorder.outputs(message, "comm_msg"))
    assert back.buffers == (blob[::-1], b"", b"\xff\x00")
    ipython.recorder.check_wire_forms()


async def test_interrupt_stops_a_sleeping_cell(ipython, cell):
    request = cell("import time\nprint('in', flush=True)\ntime.sleep(60)")
    ipython.host.send("one", request)
    await ipython.recorder.until(lambda: ipython.recorder.text(request))
    assert ipython.host.info().execution_state == "busy"
    await ipython.host.interrupt()
    reply = await ipython.recorder.done(request)
    assert reply["ename"] == "KeyboardInterrupt"
    await ipython.recorder.until(lambda: ipython.host.info().execution_state == "idle")


async def test_a_control_answer_does_not_make_a_running_cell_idle(ipython, cell, request_of):
    request = cell("import time\nprint('in', flush=True)\ntime.sleep(60)")
    ipython.host.send("one", request)
    await ipython.recorder.until(lambda: ipython.recorder.text(request))
    control = request_of("kernel_info_request", {}, channel="control")
    await ipython.run(control)
    assert ipython.host.info().execution_state == "busy"
    await ipython.host.interrupt()
    await ipython.recorder.done(request)


async def test_files_are_private(ipython):
    state = Path(ipython.host._config.state_dir)
    places = [state / "kernel", *(state / "kernel").rglob("*")]
    assert {p.name for p in places} >= {"incarnation.json", "connection-1.json", "output.log"}
    for place in places:
        mode = stat.S_IMODE(place.stat().st_mode)
        if place.is_socket():
            continue  # inside a 0700 directory
        assert mode & 0o777 == (0o700 if place.is_dir() else 0o600), place


async def test_restart_with_requests_in_flight_runs_nothing_old(ipython, cell, tmp_path):
    """Last but one in this file: a busy cell, and cells queued behind it."""
    recorder, host = ipython.recorder, ipython.host
    ran = tmp_path / "ran"
    old_pid = host.info().pid
    busy = cell("import time\nprint('in', flush=True)\ntime.sleep(60)")
    queued = [cell(f"open({str(ran)!r}, 'a').write('{i}')") for i in range(100)]
    host.send("one", busy)
    await recorder.until(lambda: recorder.text(busy))
    for request in queued:
        host.send("one", request)
    restart = asyncio.create_task(host.restart())
    await recorder.until(lambda: host.info().execution_state == "restarting")
    host.send("one", cell(f"open({str(ran)!r}, 'a').write('late')"))  # dropped, not an error
    await restart
    assert recorder.kinds()[-2:] == [
        ("ended", 1, "starting", "restart was asked for"),
        ("ready", 2),
    ]
    info = host.info()
    assert (info.incarnation, info.execution_state) == (2, "idle")
    assert info.pid != old_pid
    assert not psutil.pid_exists(old_pid)
    fresh = cell("print('first of the new')")
    reply = await ipython.run(fresh)
    assert reply["execution_count"] == 1
    assert recorder.text(fresh) == "first of the new\n"
    assert not ran.exists()
    ended = recorder.said.index(("ended", 1, "starting", "restart was asked for"))
    after = [said[-1] for said in recorder.said[ended + 1 :] if said[0] == "published"]
    assert {m.header_dict["session"] for m in after} == {info.kernel_session}
    assert host._current.highwater_raised


async def test_shutdown_leaves_no_process_and_no_file(ipython, cell):
    """Last in this file: it ends the shared kernel, with a child that the cell started."""
    recorder, host = ipython.recorder, ipython.host
    request = cell("import subprocess\nprint(subprocess.Popen(['sleep', '300']).pid, flush=True)")
    await ipython.run(request)
    child, pid = int(recorder.text(request)), host.info().pid
    await host.shutdown(now=False)
    await host.shutdown(now=True)
    assert not psutil.pid_exists(pid)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert host.info().execution_state == "dead"
    assert recorder.kinds()[-1] == ("ended", 2, "dead", "the kernel was shut down")
    assert os.listdir(f"{host._config.state_dir}/kernel") == ["output.log"]
    with pytest.raises(InvalidState):
        host.send("one", cell("1"))
    with pytest.raises(InvalidState):
        await host.start()
