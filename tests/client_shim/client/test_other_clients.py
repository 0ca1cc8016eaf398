"""Clients that know nothing of Holdfast: jupyter-kernel-client, curl. What holds for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jupyter_kernel_client import JupyterKernelClient

from support.cluster import Cluster
from support.processes import wait_until

pytestmark = [pytest.mark.long, pytest.mark.e2e, pytest.mark.timeout(300)]

LINES = 300


@pytest.fixture
def restored(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for n, proxy in enumerate(cluster.proxies):
        if not proxy.alive:
            cluster.start_proxy(n)


def client_of(cluster: Cluster, **options: Any) -> JupyterKernelClient:
    # The token in a header: in a query string, as with ``token=``, a proxy refuses it by default.
    return JupyterKernelClient(
        server_url=cluster.proxy_urls[0],
        token=None,
        headers={"Authorization": f"Bearer {cluster.token}"},
        client_kwargs=options,
    )


def text_of(result: dict[str, Any]) -> str:
    return "".join(output.get("text", "") for output in result["outputs"])


def counting_cell(side: Path) -> str:
    return (
        "import time\n"
        f"open({str(side)!r}, 'a').write('ran\\n')\n"
        f"for i in range({LINES}):\n"
        "    print(i, flush=True)\n"
        "    time.sleep(0.01)\n"
    )


def test_jupyter_kernel_client(restored: Cluster) -> None:
    with client_of(restored) as kernel:
        result = kernel.execute("x = 6\nprint(x * 7)", timeout=60)
        assert result["status"] == "ok"
        assert text_of(result) == "42\n"
        assert kernel.execute("1 / 0", timeout=60)["status"] == "error"


def test_jupyter_kernel_client_that_is_told_to_reconnect(restored: Cluster, tmp_path: Path) -> None:
    """It comes back with its session id: nothing is missing, and the cell runs once."""
    side = tmp_path / "side"
    with client_of(restored, reconnect_interval=1) as kernel, ThreadPoolExecutor(1) as threads:
        running = threads.submit(kernel.execute, counting_cell(side), timeout=120)
        wait_until(side.exists, seconds=60, what="the cell runs")
        restored.proxies[0].kill()
        restored.start_proxy(0)
        result = running.result(150)
    lines = [int(line) for line in text_of(result).splitlines()]
    assert list(dict.fromkeys(lines)) == list(range(LINES)), "missing, or out of order"
    assert side.read_text() == "ran\n"


def test_jupyter_kernel_client_as_it_is(restored: Cluster, tmp_path: Path) -> None:
    """It does not come back: its call fails, the cell goes on, and its output can be read."""
    side = tmp_path / "side"
    kernel = client_of(restored)
    kernel.start()
    kernel_id = kernel.id
    try:
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(kernel.execute, counting_cell(side), timeout=15)
            wait_until(side.exists, seconds=60, what="the cell runs")
            restored.proxies[0].kill()
            with pytest.raises(TimeoutError):
                running.result(60)
        url = f"{restored.proxy_urls[1]}/api/kernels/{kernel_id}"

        def whole() -> bool:
            log = _curl(restored, f"{url}/log?from=1")[1]
            messages = map(json.loads, log.splitlines())
            texts = [m["content"].get("text", "") for m in messages if "content" in m]
            return "".join(texts).split() == [str(i) for i in range(LINES)]

        wait_until(whole, seconds=60, what="the kernel's log has all of it")
        assert side.read_text() == "ran\n"
        assert _curl(restored, url, "-X", "DELETE")[0] == 204
    finally:
        kernel.stop(shutdown_kernel=False)


def _curl(cluster: Cluster, url: str, *options: str) -> tuple[int, str]:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not there: apt-get install curl")
    done = subprocess.run(
        [curl, "--silent", "--max-time", "30", "--retry", "20", "--retry-delay", "1",
         "--retry-all-errors", "--retry-max-time", "90", "--write-out", "\n%{http_code}",
         "--header", f"Authorization: token {cluster.token}", *options, url],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_curl_that_repeats_itself(restored: Cluster) -> None:
    """A start with an id of the client's own, and calls with a request id, may be repeated."""
    base = restored.proxy_urls[0]
    kernel_id = str(uuid.uuid4())
    start = ("-X", "POST", "--data", json.dumps({"env": {"KERNEL_ID": kernel_id}}))
    restored.proxies[0].kill()
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(_curl, restored, f"{base}/api/kernels", *start)
        time.sleep(0.5)  # curl meets a closed port first; where it is by now decides nothing
        restored.start_proxy(0)
        status, body = starting.result(150)
    assert status == 201
    assert json.loads(body)["id"] == kernel_id
    again, body = _curl(restored, f"{base}/api/kernels", *start)
    assert (again, json.loads(body)["id"]) == (201, kernel_id)
    kernels = json.loads(_curl(restored, f"{base}/api/kernels")[1])
    assert [kernel["id"] for kernel in kernels].count(kernel_id) == 1
    request = ("-X", "POST", "--header", f"Holdfast-Request: {uuid.uuid4().hex}")
    for _ in range(2):
        assert _curl(restored, f"{base}/api/kernels/{kernel_id}/restart", *request)[0] == 200
    elsewhere = restored.proxy_urls[1]
    assert _curl(restored, f"{elsewhere}/api/kernels/{kernel_id}", "-X", "DELETE")[0] == 204
    assert _curl(restored, f"{base}/api/kernels/{kernel_id}")[0] == 404
