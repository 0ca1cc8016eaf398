"""One cluster for each module, and what points a program at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cluster import Cluster
from support.program import gateway_env


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), proxies=3).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def gateway(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, and this process's environment as a program's that is to use it."""
    for name, value in gateway_env(cluster).items():
        if name.startswith(("JUPYTER_", "HOLDFAST_")):
            monkeypatch.setenv(name, value)
    return cluster
