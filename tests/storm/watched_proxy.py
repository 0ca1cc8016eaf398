"""A real proxy whose event loop is watched: ``python -m storm.watched_proxy --config FILE``.

The only thing that it does besides is to note late beats in the file that HOLDFAST_LAG names,
and, when HOLDFAST_PROFILE is set, to profile itself between two SIGUSR2.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import signal
import socket
import ssl
import sys
from pathlib import Path

import holdfast_proxy.server as server
from holdfast_proxy.cluster import Cluster
from holdfast_proxy.config import ProxyConfig
from storm.lag import LagSampler

_serve = server.serve


async def _watched(
    config: ProxyConfig,
    listening: socket.socket,
    tls: ssl.SSLContext | None,
    cluster: Cluster | None = None,
) -> int:
    LagSampler(Path(os.environ["HOLDFAST_LAG"])).start()
    if "HOLDFAST_PROFILE" in os.environ:
        _profile_on_signal(os.environ["HOLDFAST_PROFILE"])
    return await _serve(config, listening, tls, cluster)


def _profile_on_signal(name: str) -> None:
    profile = cProfile.Profile()
    running = False

    def turn() -> None:
        nonlocal running
        if running:
            profile.disable()
            profile.dump_stats(name)
        else:
            profile.enable()
        running = not running

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, turn)


if __name__ == "__main__":
    server.serve = _watched
    sys.exit(server.main())
