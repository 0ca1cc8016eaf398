"""The suite against Holdfast, Jupyter Server and Kernel Gateway, and the table of the results.

``HOLDFAST_CONFORMANCE_PAGE`` names the page whose table is written anew from this run;
``HOLDFAST_CONFORMANCE_URL`` with ``…_TOKEN`` another server, which is tried instead of these.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import jsonschema
import pytest

from conformance.conftest import BASE_URL, Peer
from conformance.suite.registry import HOLDFAST, JUPYTER_SERVER, KERNEL_GATEWAY
from conformance.suite.running import Run, run_cases, stale, table, unexplained
from holdfast_proxy.edge.reference.document import openapi
from support.cluster import Cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

_MARKS = ("<!-- table: begin -->", "<!-- table: end -->")
_PAGE = "HOLDFAST_CONFORMANCE_PAGE"


@pytest.mark.skipif("HOLDFAST_CONFORMANCE_URL" in os.environ, reason="another server is tried")
async def test_three_servers_in_one_run(
    cluster: Cluster, jupyter_server: Peer, kernel_gateway: Peer
) -> None:
    runs = await run_cases(
        {
            HOLDFAST: (cluster.proxy_urls[0], cluster.token),
            JUPYTER_SERVER: (jupyter_server.url, jupyter_server.token),
            KERNEL_GATEWAY: (kernel_gateway.url, kernel_gateway.token),
        }
    )
    text = table(runs)
    print(f"\n{_summary(runs)}\n")
    if os.environ.get(_PAGE):
        _write(Path(os.environ[_PAGE]), text)
    # A peer's case that passes though it has an explanation is news, and no failure of ours.
    print("explained, not seen:", stale(runs))
    assert unexplained(runs) == []
    _check_against_document(runs[0])


@pytest.mark.skipif("HOLDFAST_CONFORMANCE_URL" not in os.environ, reason="no server is named")
async def test_another_server() -> None:
    url, token = os.environ["HOLDFAST_CONFORMANCE_URL"], os.environ["HOLDFAST_CONFORMANCE_TOKEN"]
    (run,) = await run_cases({"this server": (url, token)})
    print(f"\n{_summary([run])}\n")
    assert unexplained([run]) == []


def _summary(runs: list[Run]) -> str:
    lines = []
    for run in runs:
        slow = sorted(run.took, key=lambda name: -run.took[name])[:3]
        slowest = ", ".join(f"{name} {run.took[name]:.1f} s" for name in slow)
        passed = f"{run.passed} of {len(run.failures)}"
        lines.append(f"{run.server}: {passed} in {run.seconds:.0f} s ({slowest})")
    lines += [
        f"  {run.server}: {name}: {failure}"
        for run in runs
        for name, failure in run.failures.items()
        if failure is not None
    ]
    return "\n".join(lines)


def _write(page: Path, text: str) -> None:
    whole = page.read_text("utf-8")
    begin, end = _MARKS
    before, _, rest = whole.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{page} has no {begin} … {end}"
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", "utf-8")


def _check_against_document(run: Run) -> None:
    """Every answer of the proxy is one that its OpenAPI document describes."""
    document = openapi(BASE_URL, version="0")
    checked = 0
    for method, path, answer in run.seen:
        operation = _operation(document, method, path.partition("?")[0])
        if operation is None:
            assert answer.status in (404, 405), (method, path, answer.status)
            continue
        described = operation["responses"].get(str(answer.status))
        assert described is not None, f"{method} {path}: {answer.status} is not in the document"
        content = described.get("content", {}).get("application/json")
        if content is None:
            continue
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.body)
        checked += 1
    assert checked > 100, f"only {checked} answers were checked"


def _operation(document: dict[str, dict[str, object]], method: str, path: str) -> dict | None:
    for template, operations in document["paths"].items():
        pattern = re.sub(r"\{path\}", ".+", re.sub(r"\{(?!path)\w+\}", "[^/]+", template))
        if re.fullmatch(pattern, "/" + path) and method.lower() in operations:
            return operations[method.lower()]
    return None
