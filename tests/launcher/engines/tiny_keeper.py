"""The least that an engine takes for a keeper. Its config's env says how it is to behave."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.processes import ProcessId, machine_boot_id
from holdfast_launcher.state.statefiles import write_json

#: The zygote imports this module; a fork of it remembers whose fork it is.
ZYGOTE = os.getpid()


def run(config: KeeperConfig, ready_fd: int) -> int:
    if "FAIL" in config.env:
        raise RuntimeError(config.env["FAIL"])
    if "HANG" in config.env:
        signal.pause()
    if "KILL_ZYGOTE" in config.env:
        with contextlib.suppress(ProcessLookupError):
            os.kill(ZYGOTE, signal.SIGKILL)
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert machine_boot_id()
    document = {
        "kernel_id": config.kernel_id,
        "nonce": config.nonce,
        "pid": me.pid,
        "start_time": me.start_time,
        "endpoint": {"host": "127.0.0.1", "port": 1},
        "fingerprint": None,
        "credential": config.credential,
        "epoch": "0" * 32,
        "spec": config.spec,
        "user": config.user,
    }
    write_json(Path(config.state_dir) / "keeper.json", document)
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    signal.pause()
    return 0
