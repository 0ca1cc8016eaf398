"""One proxy process with a fake cluster behind it: ``python -m support.proxy_process FILE``.

``KERNELS`` in the environment is JSON: {kernel id: [host, port, fingerprint, credential]}.
"""

from __future__ import annotations

import json
import os
import sys

import holdfast_proxy.ownership as ownership
from holdfast_proxy.cluster import Cluster, KeeperEndpoint
from holdfast_proxy.config import ProxyConfig
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.server import main
from support.fake_cluster import FakeCluster


def build_cluster(config: ProxyConfig) -> Cluster:
    cluster = FakeCluster(config.id)
    for kernel_id, (host, port, fingerprint, credential) in json.loads(
        os.environ.get("KERNELS", "{}")
    ).items():
        endpoint = KeeperEndpoint(kernel_id, host, port, fingerprint, credential)
        cluster.add(kernel_id, located=endpoint)
    if "REFUSE" in os.environ:
        cluster.fail["cluster_start"] = Unavailable(os.environ["REFUSE"])
    return cluster


if __name__ == "__main__":
    ownership.build_cluster = build_cluster  # type: ignore[attr-defined]
    sys.exit(main(["--config", sys.argv[1]]))
