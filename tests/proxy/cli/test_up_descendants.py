"""What `holdfast up` finds below itself at its end, in a process that may be a subreaper.

(This process must not become one: orphans of other tests would change their parent.)
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_proxy.cli.up.descendants import keeper_pids
from holdfast_proxy.cli.up.identity import ProcessIdentity

SCRIPT = """
import json, sys, time, psutil
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_child import leave_orphan
from holdfast_proxy.cli.up.descendants import OrphanReaper, end_descendants
from holdfast_proxy.cli.up.spawning import become_subreaper

def pid_in(file):
    while not file.exists() or not file.read_text().endswith("\\n"):
        time.sleep(0.01)
    return int(file.read_text())

base = Path(sys.argv[2])
become_subreaper()
for name in ("doomed", "spared"):
    leave_orphan(base / name)
doomed, spared = pid_in(base / "doomed"), pid_in(base / "spared")
ended = end_descendants(spare={spared}, timeout=5.0)
lives = psutil.pid_exists(spared)
psutil.Process(spared).kill()
reaper, looks = OrphanReaper(), 0
while psutil.pid_exists(spared):
    reaper.collect(set())
    looks += 1
    time.sleep(0.01)
print(json.dumps([ended == [doomed], lives, looks]))
"""


def test_orphans_are_ended_except_the_spared_and_zombies_are_collected(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    ended_the_right_one, spared_lived, looks = json.loads(result.stdout)
    assert ended_the_right_one
    assert spared_lived
    assert looks >= 2, "a zombie is collected only when it was seen twice"


def test_keepers_and_their_kernels_are_found_in_launchers_state(tmp_path: Path) -> None:
    state = tmp_path / "launcher-1" / "kernels" / "k1"
    state.mkdir(parents=True)
    said = {"kernel_id": "k1", "pid": 11, "kernel": {"pid": 12, "pgid": 99}, "port": 13}
    (state / "keeper.json").write_text(json.dumps(said))
    (tmp_path / "launcher-1" / "keeper.json").write_text("{broken")
    assert keeper_pids([tmp_path / "launcher-1", tmp_path / "launcher-2"]) == {11, 12}


def test_a_process_is_its_pid_and_its_start(tmp_path: Path) -> None:
    process = subprocess.Popen(["/bin/sleep", "600"])
    try:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        assert identity.alive
        assert not ProcessIdentity(identity.pid, identity.start_ticks + 1).alive
        assert not ProcessIdentity(identity.pid, identity.start_ticks + 1).send(signal.SIGTERM)
        process.kill()
        # Nobody has waited for it: a zombie is not alive.
        _wait_zombie(process.pid)
        assert not identity.alive
    finally:
        process.kill()
        process.wait()
    assert ProcessIdentity.of(process.pid) is None


def _wait_zombie(pid: int) -> None:
    import psutil

    for _ in range(1000):
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
    pytest.fail("not a zombie")
