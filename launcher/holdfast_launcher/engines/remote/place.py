"""What a far machine is, as a keeper on it needs to know: pure but for what is passed in.

A launcher cannot know it: the address under which that machine is reached, the user's home there,
what the scheduler gave the job. It must not know the launcher's files.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from holdfast_launcher.engines.remote.reporting import Order
from holdfast_launcher.keeper.config import KeeperConfig

#: What a scheduler tells a job, and a job's programs go by.
_JOB_PREFIXES = ("SLURM_", "CUDA_", "NVIDIA_", "ROCR_", "GPU_", "ZE_", "HIP_", "PBS_", "OMP_")
#: The user's own on that machine, when the job runs as somebody else than the launcher.
_PERSONAL = ("HOME", "USER", "LOGNAME", "SHELL")
_LAUNCHERS_OWN = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")


def address_towards(url: str) -> str:
    """The address of this machine from which ``url``'s host is reached: where it can be called
    back. Raises OSError when there is no way to it."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # of a datagram socket: sends nothing, finds the route
        return str(probe.getsockname()[0])


def settle_config(
    config: KeeperConfig,
    order: Order,
    *,
    directory: Path,
    address: str,
    environment: Mapping[str, str],
    personal: Mapping[str, str],
) -> KeeperConfig:
    """The launcher's config, for this machine. ``environment``: this process's; ``personal``:
    HOME and its like of the user that this runs as, when that is not the launcher's."""
    env = dict(config.env)
    env |= {
        name: value
        for name, value in environment.items()
        if name.startswith(_JOB_PREFIXES) or name == "TMPDIR"
    }
    if personal and personal.get("USER") != env.get("USER"):
        for name in _LAUNCHERS_OWN:
            env.pop(name, None)
        env |= {name: personal[name] for name in _PERSONAL if name in personal}
    path = config.path
    if path is not None and not os.access(path, os.R_OK | os.X_OK):
        path = env.get("HOME", "/")
    return msgspec.structs.replace(
        config,
        env=env,
        path=path,
        state_dir=str(directory),
        host=address,
        log_quota_dir=str(directory.parent / "logs"),
    )
