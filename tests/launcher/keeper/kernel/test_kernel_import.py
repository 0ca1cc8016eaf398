"""Keepers are forked from a zygote that imported all this: importing opens nothing."""

from __future__ import annotations

import os
import subprocess
import sys

CHECK = """
import asyncio, os, threading
import holdfast_launcher.keeper.kernel
from holdfast_launcher.keeper.config import KeeperConfig
import zmq
from holdfast_launcher.keeper.kernel import build_kernel_host
assert threading.active_count() == 1, threading.enumerate()
assert len(os.listdir("/proc/self/task")) == 1
assert zmq.Context._instance is None
links = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
         and os.path.exists(f"/proc/self/fd/{n}")]
assert not [link for link in links if "eventfd" in link or "socket" in link], links
assert asyncio.get_event_loop_policy()._local._loop is None
config = KeeperConfig(kernel_id="k", nonce="n", spec="s", user="u", state_dir="/nowhere",
                      credential="c")
build_kernel_host(config, None)
assert len(os.listdir("/proc/self/task")) == 1
"""


def test_import_and_build_open_nothing():
    done = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
