"""nbclient and its kin on a real cluster: what they show, how they end, what they leave behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from holdfast_client_shim.client import HoldfastKernelManager
from support.cluster import Cluster, http_get
from support.processes import wait_until
from support.program import gateway_env, notebook_of, stderr_of, stdout_of

pytestmark = [pytest.mark.long, pytest.mark.e2e, pytest.mark.timeout(300)]


def client_of(notebook: Any, **options: Any) -> NotebookClient:
    return NotebookClient(
        notebook, kernel_manager_class=HoldfastKernelManager, timeout=120, **options
    )


def kernels(cluster: Cluster) -> list[dict[str, Any]]:
    status, body = http_get(f"{cluster.proxy_urls[0]}/api/kernels", token=cluster.token, seconds=10)
    assert status == 200, body
    listed: list[dict[str, Any]] = json.loads(body)
    return listed


def test_a_notebook_is_run_and_its_kernel_ends_with_it(gateway: Cluster) -> None:
    notebook = notebook_of("x = 6", "print(x * 7)", "x")
    client_of(notebook).execute()
    assert stdout_of(notebook.cells[1]) == "42\n"
    assert notebook.cells[2].outputs[0]["data"]["text/plain"] == "6"
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert kernels(gateway) == []


async def test_in_a_loop_that_runs(gateway: Cluster) -> None:
    notebook = notebook_of("print('here')")
    await client_of(notebook).async_execute()
    assert stdout_of(notebook.cells[0]) == "here\n"
    assert await asyncio.to_thread(kernels, gateway) == []


def test_a_cell_that_fails(gateway: Cluster) -> None:
    notebook = notebook_of("1 / 0", "print('not run')")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        client_of(notebook).execute()
    assert notebook.cells[1].outputs == []
    assert kernels(gateway) == []


def test_a_kernel_that_dies_is_said_with_the_reason(gateway: Cluster) -> None:
    notebook = notebook_of("print('before', flush=True)\nimport os; os._exit(3)", "print('no')")
    with pytest.raises(DeadKernelError, match="exited with code 3"):
        client_of(notebook).execute()
    shown = json.dumps(notebook.cells[0].outputs)
    assert "before" in shown
    assert "exited with code 3" in shown
    assert kernels(gateway) == []


def test_a_kernel_that_somebody_deletes(gateway: Cluster, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    notebook = notebook_of(f"open({str(mark)!r}, 'w').close()\nimport time; time.sleep(100)")

    async def run() -> None:
        running = asyncio.ensure_future(client_of(notebook).async_execute())
        await asyncio.to_thread(wait_until, mark.exists, seconds=60, what="the cell runs")
        (kernel,) = await asyncio.to_thread(kernels, gateway)
        other = HoldfastKernelManager()
        await other.start_kernel(kernel_id=kernel["id"])
        await other.shutdown_kernel()
        with pytest.raises(DeadKernelError, match="shut down"):
            await running

    asyncio.run(run())
    assert kernels(gateway) == []


def test_a_cell_that_takes_too_long_is_interrupted(gateway: Cluster) -> None:
    notebook = notebook_of("import time\nwhile True: time.sleep(0.1)", "print('after')")
    client = NotebookClient(
        notebook, kernel_manager_class=HoldfastKernelManager, timeout=3, interrupt_on_timeout=True,
        allow_errors=True,
    )  # fmt: skip
    client.execute()
    assert notebook.cells[0].outputs[-1]["ename"] == "KeyboardInterrupt"
    assert stdout_of(notebook.cells[1]) == "after\n"


def test_a_cell_that_takes_too_long(gateway: Cluster) -> None:
    notebook = notebook_of("import time; time.sleep(100)")
    client = NotebookClient(notebook, kernel_manager_class=HoldfastKernelManager, timeout=2)
    with pytest.raises(CellTimeoutError):
        client.execute()
    assert kernels(gateway) == []


def test_an_unknown_kernelspec(gateway: Cluster) -> None:
    with pytest.raises(NoSuchKernel):
        client_of(notebook_of("1"), kernel_name="fortran").execute()


def test_a_wrong_token_is_said(gateway: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_GATEWAY_AUTH_TOKEN", "wrong")
    with pytest.raises(RuntimeError, match="could not be started"):
        client_of(notebook_of("1")).execute()


def test_no_gateway_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_GATEWAY_URL", "HOLDFAST_GATEWAY_URLS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="HOLDFAST_GATEWAY_URLS"):
        client_of(notebook_of("1")).execute()


def test_more_output_than_is_held_here(gateway: Cluster) -> None:
    """Far more than the bytes that are kept for a slow reader; all of it, in order."""
    notebook = notebook_of(
        "for i in range(120):\n    print(i, 'x' * 1_000_000, flush=True)", "print('end')"
    )
    client_of(notebook).execute()
    lines = stdout_of(notebook.cells[0]).splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(120))
    assert {len(line.split()[1]) for line in lines} == {1_000_000}
    assert stdout_of(notebook.cells[1]) == "end\n"


async def test_output_that_nobody_reads_holds_nothing_up(gateway: Cluster) -> None:
    """A client that waits for replies only gets them, whatever piles up on iopub."""
    manager = HoldfastKernelManager()
    await manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        code = "for i in range(80):\n    print('x' * 1_000_000, flush=True)"
        reply = await client.execute(code, reply=True, timeout=120)
        assert reply["content"]["status"] == "ok"
        client.stop_channels()
    finally:
        await manager.shutdown_kernel()


async def test_two_clients_of_one_kernel_and_a_restart(gateway: Cluster) -> None:
    manager = HoldfastKernelManager()
    await manager.start_kernel()
    try:
        first, second = manager.client(), manager.client()
        for client in (first, second):
            client.start_channels()
            await client.wait_for_ready(timeout=60)
        shown: list[str] = []

        def show(message: dict[str, Any]) -> None:
            shown.append(message["content"].get("text", ""))

        reply = await first.execute_interactive(
            "print(40 + 2)", timeout=60, allow_stdin=False, output_hook=show
        )
        assert reply["content"]["status"] == "ok"
        assert "42\n" in shown
        assert (await second.execute("1", reply=True, timeout=60))["content"]["status"] == "ok"
        await manager.restart_kernel()
        await second.wait_for_ready(timeout=60)
        reply = await second.execute("x = 1", reply=True, timeout=60)
        assert reply["content"]["status"] == "ok"
        assert await manager.is_alive()
        for client in (first, second):
            client.stop_channels()
    finally:
        await manager.shutdown_kernel()
    assert not await manager.is_alive()


async def test_a_question_is_answered(gateway: Cluster) -> None:
    manager = HoldfastKernelManager()
    await manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        shown: list[str] = []
        reply = await client.execute_interactive(
            "print('hello ' + input('who? '))", timeout=60,
            output_hook=lambda message: shown.append(message["content"].get("text", "")),
            stdin_hook=lambda message: client.input("you"),
        )  # fmt: skip
        assert reply["content"]["status"] == "ok"
        assert "hello you\n" in shown
        client.stop_channels()
    finally:
        await manager.shutdown_kernel()


def test_jupyter_execute_and_nbconvert(cluster: Cluster, tmp_path: Path) -> None:
    """By configuration alone: a line for nbclient's own program, an option for nbconvert."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "jupyter_config.py").write_text(
        "from holdfast_client_shim.client import make_default\nmake_default()\n"
    )
    source = tmp_path / "book.ipynb"
    nbformat.write(notebook_of("import os\nprint(os.environ['KERNEL_ID'])"), source)
    env = gateway_env(cluster, JUPYTER_CONFIG_DIR=str(config), JUPYTER_NO_CONFIG="")
    del env["JUPYTER_NO_CONFIG"]
    programs = {
        "executed": ["execute", "--output=executed", str(source)],
        "converted": [
            "nbconvert", "--execute", "--to=notebook", "--output=converted",
            "--ExecutePreprocessor.kernel_manager_class="
            "holdfast_client_shim.client.HoldfastKernelManager", str(source),
        ],
    }  # fmt: skip
    for name, arguments in programs.items():
        done = subprocess.run(
            [sys.executable, "-m", "jupyter", *arguments],
            env=env, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        assert len(stdout_of(result.cells[0]).strip()) == 36, done.stderr
    assert kernels(cluster) == []


def test_a_program_that_is_interrupted_leaves_no_kernel(cluster: Cluster, tmp_path: Path) -> None:
    import signal

    from support.processes import ManagedProcess

    mark = tmp_path / "runs"
    source = tmp_path / "book.ipynb"
    nbformat.write(
        notebook_of(f"open({str(mark)!r}, 'w').close()\nimport time; time.sleep(300)"), source
    )
    command = [
        sys.executable, "-m", "papermill", "--engine", "holdfast", "--no-progress-bar",
        str(source), os.devnull,
    ]  # fmt: skip
    program = ManagedProcess("papermill", command, log=tmp_path / "log", env=gateway_env(cluster))
    program.start()
    try:
        wait_until(mark.exists, seconds=120, what="the cell runs")
        assert len(kernels(cluster)) == 1
        program.signal(signal.SIGINT)
        assert program.wait(60) != 0
    finally:
        program.stop()
    assert kernels(cluster) == [], program.tail()


def test_stderr_is_the_cells_own(gateway: Cluster) -> None:
    notebook = notebook_of("import sys; print('a warning', file=sys.stderr)")
    client_of(notebook).execute()
    assert stderr_of(notebook.cells[0]) == "a warning\n"
