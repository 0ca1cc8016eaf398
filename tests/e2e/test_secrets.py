"""No secret in a log, an argument or a kernel's environment; files are the owner's alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import psutil
import pytest

from support.cluster import Cluster, JupyterServer
from support.notebook import notebook

pytestmark = pytest.mark.e2e


def secrets_of(cluster: Cluster) -> dict[str, str]:
    """Every secret of the running cluster, by name."""
    found = {
        "client token": cluster.token,
        "cluster key": cluster.cluster_key,
        "join token": cluster.join_token,
    }
    for file in (cluster.base / "launcher" / "kernels").glob("*/keeper.json"):
        found[f"keeper credential {file.parent.name}"] = json.loads(file.read_text())["credential"]
    for file in (cluster.base / "launcher").rglob("connection-*.json"):
        key = json.loads(file.read_text()).get("key")
        if key:
            found["kernel HMAC key"] = key
    return found


async def test_no_secret_leaks(cluster: Cluster, server: JupyterServer) -> None:
    async with notebook(server.url, server.token) as book:
        environment = (await book.run("import os; print(dict(os.environ))")).text
        secrets = secrets_of(cluster)
        assert len(secrets) >= 5, f"not all kinds of secrets were found: {sorted(secrets)}"
        for name, secret in secrets.items():
            assert secret not in environment, f"{name} is in the kernel's environment"
            for log in cluster.base.rglob("*.log"):
                assert secret not in log.read_text(errors="replace"), f"{name} is in {log.name}"
            for process in _processes(cluster):
                assert secret not in " ".join(process.cmdline()), f"{name} in argv of {process}"
        await book.rest("DELETE", "")


async def test_files_are_private(cluster: Cluster, server: JupyterServer) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run("pass")
        state = cluster.base / "launcher"
        wrong = [
            f"{path} {stat.S_IMODE(path.lstat().st_mode):o}"
            for path in [state, *state.rglob("*")]
            if _too_open(path)
        ]
        assert wrong == []
        await book.rest("DELETE", "")


async def test_nothing_that_a_cluster_holds_is_in_clear_in_etcd(
    cluster: Cluster, server: JupyterServer
) -> None:
    async with notebook(server.url, server.token) as book:
        await book.run("pass")
        secrets = secrets_of(cluster)
        stored = b"".join(
            path.read_bytes() for path in (cluster.base / "etcd").rglob("*") if path.is_file()
        )
        assert book.kernel_id.encode() in stored, "this test looks at the wrong files"
        for name, secret in secrets.items():
            assert secret.encode() not in stored, f"{name} is in etcd in clear"
        await book.rest("DELETE", "")


def _too_open(path: Path) -> bool:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return False
    if stat.S_ISSOCK(mode):  # ZMQ makes them with the kernel's umask; the folder shuts others out
        return bool(path.parent.stat().st_mode & 0o077)
    return bool(stat.S_IMODE(mode) & 0o077)


def _processes(cluster: Cluster) -> list[psutil.Process]:
    """Every process of the cluster, keepers and kernels included."""
    pids = {p.pid for p in [*cluster.proxies, cluster.launcher, cluster.etcd]}
    for file in (cluster.base / "launcher" / "kernels").glob("*/keeper.json"):
        pids.add(json.loads(file.read_text())["pid"])
    parents = [psutil.Process(pid) for pid in pids]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]
