"""One cluster and one stock Jupyter Server for each module of end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cluster import Cluster, JupyterServer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster")).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> JupyterServer:
    return cluster.jupyter()
