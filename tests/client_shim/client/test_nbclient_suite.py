"""nbclient's own test suite, with every kernel behind Holdfast.

From its source distribution, which is downloaded when this runs and checked by its hash; none of
it is in this repository. What does not pass is named here with its reason, and in
docs/reference/conformance-nbclient.md; anything else that fails is a failure of ours, and so is
one of these that begins to pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.figures import keep
from support.program import gateway_env

pytestmark = [pytest.mark.long, pytest.mark.e2e]

VERSION = "0.11.0"
SHA256 = "04a134a5b087f2c5887f228aca155db50169b8cd9334dee6942c8e927e56081a"
#: Test → why it cannot pass with a kernel behind a gateway, or with an asynchronous manager.
EXPECTED = {
    "test_client::test_run_all_notebooks[Check History in Memory.ipynb-opts15]": (
        "wants an argument in the command of ipykernel; a gateway passes no arguments on"
    ),
    "test_client::test_start_new_kernel_history_file_setting": (
        "wants the same argument, and a client before there is a kernel"
    ),
    "test_client::test_startnewkernel_with_kernelmanager": (
        "calls cleanup_resources of a blocking manager; ours is a coroutine, as any async one's"
    ),
}
#: What the suite's notebooks look for in their kernels' environment.
VARIABLES = ("IPYKERNEL_CELL_NAME", "NBEXECUTE_TEST_PARALLEL_TMPDIR")
WHITELIST = f"env_whitelist = {json.dumps(VARIABLES)}"


def download(folder: Path) -> Path:
    """The unpacked source distribution, through pip, which knows the registry."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
         "--no-binary=nbclient", f"--dest={folder}", f"nbclient=={VERSION}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    archive = folder / f"nbclient-{VERSION}.tar.gz"
    if not archive.exists():
        if os.environ.get("CI"):
            pytest.fail(f"nbclient {VERSION} could not be downloaded: {done.stderr}")
        pytest.skip(f"nbclient {VERSION} could not be downloaded: {done.stderr.splitlines()[-1:]}")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / f"nbclient-{VERSION}"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "cluster", proxy_toml=WHITELIST, launcher_toml=WHITELIST)


def outcomes(report: Path) -> dict[str, str]:
    """Test → passed, failed or skipped."""
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        found[name] = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
    return found


@pytest.mark.timeout(1800)
def test_nbclients_own_suite(cluster: Cluster, tmp_path: Path) -> None:
    source = download(tmp_path)
    report = tmp_path / "report.xml"
    cluster.start()
    try:
        env = gateway_env(
            cluster,
            JUPYTER_GATEWAY_ALLOWED_ENVS=",".join(VARIABLES),
            PYTHONPATH=str(Path(__file__).parents[2]),
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "support.nbclient_plugin",
             "-p", "no:cacheprovider", f"--junitxml={report}", "--timeout=300",
             "-o", "asyncio_default_fixture_loop_scope=function", "tests"],
            cwd=source, env=env, capture_output=True, text=True, timeout=1700, check=False,
        )  # fmt: skip
    finally:
        cluster.stop()
    results = outcomes(report)
    passed = sum(outcome == "passed" for outcome in results.values())
    keep({"figure": f"nbclient {VERSION}'s suite", "passed": passed, "of": len(results)})
    failed = {name for name, outcome in results.items() if outcome == "failed"}
    assert failed == set(EXPECTED), done.stdout[-20_000:]
    assert passed >= 100, done.stdout[-2000:]
