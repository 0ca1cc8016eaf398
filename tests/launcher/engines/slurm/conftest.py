"""A Slurm of three nodes, and a Holdfast that submits to it as docs/howto/slurm.md says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.slurm.gateway import SlurmGateway
from support.slurm.site import SlurmSite

PAGE = Path(__file__).parents[4] / "docs" / "howto" / "slurm.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmSite]:
    made = SlurmSite(tmp_path_factory.mktemp("slurm"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def gateway(site: SlurmSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmGateway]:
    base = tmp_path_factory.mktemp("gateway")
    for name in ("output", "node", "bin"):
        (base / name).mkdir()
    cluster = Cluster(base / "cluster", launcher_toml=launcher_toml(base, site))
    made = SlurmGateway(site, cluster, bin_dir=base / "bin")
    try:
        cluster.start()
        yield made
    finally:
        cluster.stop()


def launcher_toml(base: Path, site: SlurmSite) -> str:
    """The page's configuration with this machine's paths."""
    found = re.search(r"```toml\n(engine.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, "the page has a configuration"
    text = found[1].replace("single_user = true", "#")  # every test's cluster has it already
    text = text.replace("/opt/holdfast/bin/python", sys.executable)
    text = text.replace("/shared/holdfast", str(base / "output"))
    more = (
        f'conf = "{site.conf}"\nnode_dir = "{base / "node"}"\nbin_dir = "{base / "bin"}"\n'
        "poll_interval = 1.0\n"
    )
    return text.replace("[engines.slurm]\n", f"[engines.slurm]\n{more}")
