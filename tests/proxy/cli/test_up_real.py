"""`holdfast up` as a person runs it: real etcd, proxies, launcher, keeper, kernel, JupyterLab."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast_proxy.cli.up.identity import ProcessIdentity
from support.cluster import clean_env
from support.processes import wait_until
from support.system import need_command

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

#: Generous: these are conditions, and the machine may be busy with other things.
DEADLINE = 90.0


def until(condition: Callable[[], Any], what: str, *, seconds: float = DEADLINE) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.03)
    pytest.fail(f"never happened: {what}")


class RunningUp:
    """One `holdfast up` process and what belongs to it."""

    def __init__(self, base: Path, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.state = base / "state"
        self.base = base
        self.log = base / "up.log"
        self.out = base / "up.out"
        home = base / "home"
        home.mkdir(exist_ok=True)
        earlier = self._written()
        argv = [
            *prefix, sys.executable, "-m", "holdfast_proxy.cli", "up", "--port=0",
            f"--state-dir={self.state}", f"--root-dir={base}", *options,
        ]  # fmt: skip
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self.process = subprocess.Popen(
                argv, stdout=out, stderr=log, stdin=subprocess.DEVNULL,
                env=clean_env(HOME=str(home), XDG_STATE_HOME="", XDG_RUNTIME_DIR=""),
            )  # fmt: skip
        self.seen: set[ProcessIdentity] = set()
        self._earlier = earlier

    def wait_ready(self) -> RunningUp:
        def ready() -> bool:
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()}"
            return self._written() not in {None, self._earlier}

        until(ready, "cluster.json")
        self.note()
        return self

    def _written(self) -> int | None:
        """When cluster.json was written: one that a killed `up` left is not this one's."""
        try:
            return (self.state / "cluster.json").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    @property
    def cluster(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.state / "cluster.json").read_text())
        return content

    @property
    def members(self) -> dict[str, int]:
        said = self.cluster
        named = {"etcd": said["etcd"]["pid"]}
        named |= {member["id"]: member["pid"] for member in said["proxies"] + said["launchers"]}
        return named | ({"lab": said["lab"]["pid"]} if said["lab"] else {})

    def note(self) -> set[ProcessIdentity]:
        """Remember everything that runs below it, keepers and kernels included."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        found = {ProcessIdentity.of(process.pid) for process in below}
        self.seen |= {identity for identity in found if identity is not None}
        self.seen |= self.kernel_processes()
        return self.seen

    def kernel_processes(self) -> set[ProcessIdentity]:
        """Keepers and kernels, found by the state directory in a command line or environment."""
        found = set()
        for process in psutil.process_iter():
            try:
                marks = [*process.cmdline(), *process.environ().values()]
            except (psutil.Error, OSError):
                continue
            if any(str(self.base) in mark for mark in marks) and process.pid != os.getpid():
                identity = ProcessIdentity.of(process.pid)
                found |= {identity} if identity and process.pid != self.process.pid else set()
        return found

    def alive(self) -> set[ProcessIdentity]:
        return {identity for identity in self.seen if identity.alive}

    def request(self, method: str, path: str, body: Any = None, *, proxy: int = 0) -> Any:
        said = self.cluster
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            said["proxies"][proxy]["url"] + path, data=data, method=method,
            headers={"Authorization": f"token {said['token']}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def start_kernel(self) -> str:
        kernel_id = str(uuid.uuid4())
        body = {"name": "python3", "env": {"KERNEL_ID": kernel_id}}
        assert self.request("POST", "/api/kernels", body)["id"] == kernel_id
        self.note()
        return kernel_id

    def start_kernel_in_lab(self) -> str:
        lab = self.cluster["lab"]
        request = urllib.request.Request(
            f"{lab['url']}/api/kernels", data=b'{"name": "python3"}', method="POST",
            headers={"Authorization": f"token {lab['token']}"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            kernel_id: str = json.loads(answer.read())["id"]
        assert self.ids() == [kernel_id]
        self.note()
        return kernel_id

    def ids(self, *, proxy: int = 0) -> list[str]:
        return [kernel["id"] for kernel in self.request("GET", "/api/kernels", proxy=proxy)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Seconds that the orderly stop took."""
        self.note()
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(DEADLINE) == 0, self.log.read_text()
        return time.monotonic() - began

    def end(self) -> None:
        """The test is over, whatever happened in it."""
        self.seen |= self.kernel_processes()
        if self.process.poll() is None:
            self.note()
            self.process.kill()
            self.process.wait()
        for identity in self.seen:
            identity.send(signal.SIGKILL)


Start = Callable[..., RunningUp]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[RunningUp] = []

    def start(*options: str, **more: Any) -> RunningUp:
        started.append(RunningUp(tmp_path, *options, **more))
        return started[-1]

    yield start
    for up in started:
        up.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUp]:
    """One tree for the tests that leave it as they found it."""
    up = RunningUp(tmp_path_factory.mktemp("shared"), "--no-lab")
    try:
        yield up.wait_ready()
        up.stop(signal.SIGINT)
        assert up.alive() == set()
    finally:
        up.end()


def test_killed_children_come_back_and_sigterm_leaves_nothing(start: Start) -> None:
    up = start("--no-lab").wait_ready()
    assert up.cluster["lab"] is None
    kernel_id = up.start_kernel()
    for name in ("proxy-1", "proxy-2", "launcher-1", "etcd"):
        before, urls = up.members[name], [proxy["url"] for proxy in up.cluster["proxies"]]
        os.kill(before, signal.SIGKILL)
        until(lambda name=name, before=before: up.members[name] != before, f"{name} is back")
        assert [proxy["url"] for proxy in up.cluster["proxies"]] == urls
        up.note()

    def listed(proxy: int) -> bool:
        try:
            return up.ids(proxy=proxy) == [kernel_id]
        except (urllib.error.URLError, OSError):
            return False

    for proxy in (0, 1):
        until(lambda proxy=proxy: listed(proxy), f"proxy {proxy} lists the kernel")
    took = up.stop()
    print(f"orderly stop: {took:.2f} s")
    assert took < 15.0
    assert up.alive() == set()
    assert not (up.state / "cluster.json").exists()


def test_a_killed_proxy_is_started_again_within_two_seconds(shared: RunningUp) -> None:
    before = shared.members["proxy-1"]
    os.kill(before, signal.SIGKILL)
    killed = time.monotonic()

    def successor() -> float | None:
        children = json.loads((shared.state / "children.json").read_text())
        pid = children.get("proxy-1", {}).get("pid", before)
        return time.monotonic() if pid != before else None

    took = until(successor, "a new process") - killed
    print(f"started again after {took * 1000:.0f} ms")
    assert took < 2.0
    until(lambda: shared.members["proxy-1"] != before, "it is ready")
    shared.note()


def test_a_stopped_proxy_is_left_alone(shared: RunningUp) -> None:
    pid = shared.members["proxy-1"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert shared.request("GET", "/api/kernels", proxy=1) == []
        assert shared.members["proxy-1"] == pid
        stopped = psutil.Process(pid)  # kill(2) does not wait for the signal's effect
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, seconds=10, what="its stop")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_second_up_on_the_same_state_is_refused(shared: RunningUp) -> None:
    argv = [sys.executable, "-m", "holdfast_proxy.cli", "up", f"--state-dir={shared.state}"]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert f"pid {shared.process.pid}" in refused.stderr
    assert shared.cluster["token"], "the first one is untouched"


def test_kept_kernels_are_found_again_and_ended_by_the_next_stop(start: Start) -> None:
    first = start("--keep-kernels").wait_ready()
    kernel_id = first.start_kernel_in_lab()  # so that JupyterLab could delete it when it stops
    first.stop()
    survivors = first.alive()
    assert survivors, "keeper and kernel live"
    assert not survivors & {ProcessIdentity.of(pid) for pid in (first.process.pid,)}
    second = start("--no-lab").wait_ready()
    assert second.ids() == [kernel_id]
    model = second.request("GET", f"/api/kernels/{kernel_id}")
    assert model["execution_state"] == "idle"
    second.seen |= survivors
    second.stop()
    assert second.alive() == set()


def test_after_kill_9_of_up_only_kernels_stay_and_the_next_one_has_them(start: Start) -> None:
    first = start("--no-lab").wait_ready()
    kernel_id = first.start_kernel()
    children = [ProcessIdentity.of(pid) for pid in first.members.values()]
    first.note()
    first.process.kill()
    first.process.wait()
    second = start("--no-lab").wait_ready()
    assert not any(child is not None and child.alive for child in children)
    assert second.ids() == [kernel_id]
    second.seen |= first.seen
    second.stop()
    assert second.alive() == set()


def test_a_second_signal_ends_everything_at_once(start: Start) -> None:
    up = start("--no-lab").wait_ready()
    up.start_kernel()
    up.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in up.log.read_text(), "it has seen the first")
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(DEADLINE) in {0, 130}  # 0: the orderly stop was quicker
    assert up.alive() == set()


def test_secrets_are_private_and_the_lab_address_is_the_last_line(start: Start) -> None:
    up = start("--token=given-by-hand").wait_ready()
    said = up.cluster
    lab = said["lab"]
    until(lambda: up.out.read_text().endswith("\n"), "the addresses")
    assert up.out.read_text().splitlines()[-1] == f"{lab['url']}/lab?token={lab['token']}"
    assert said["token"] == "given-by-hand"
    up.start_kernel()
    wrong = [
        f"{file}: {stat.S_IMODE(file.lstat().st_mode):o}"
        for file in [up.state, *up.state.rglob("*")]
        if "etcd" not in file.parts and not file.is_socket() and not _private(file)
    ]
    assert not wrong, wrong
    secrets = [file.read_text().strip() for file in (up.state / "secrets").iterdir()]
    up.note()
    kernels = 0
    for identity in up.alive():
        argv, environ = _proc(identity.pid, "cmdline"), _proc(identity.pid, "environ")
        assert not any(secret in argv for secret in secrets), argv
        if "KERNEL_ID=" in environ:
            kernels += 1
            assert not any(secret in environ for secret in secrets)
    assert kernels, "the kernel was not among what was looked at"
    logs = "".join(file.read_text(errors="replace") for file in (up.state / "logs").iterdir())
    assert not any(secret in logs for secret in secrets if secret != lab["token"])
    assert _get(f"{lab['url']}/api/kernelspecs?token={lab['token']}")["default"] == "python3"
    up.stop()
    assert up.alive() == set()


def test_it_works_as_a_normal_user(start: Start, tmp_path: Path) -> None:
    """As root, in a user namespace where it is uid 1000 and has no capability."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        unshare = need_command("unshare", package="util-linux")
        prefix = (unshare, "--user", "--map-user=1000", "--map-group=1000")
        allowed = subprocess.run([*prefix, "id", "-u"], capture_output=True, text=True, check=False)
        if allowed.stdout.strip() != "1000":
            pytest.skip("this machine allows no user namespaces")
    up = start("--no-lab", prefix=prefix).wait_ready()
    kernel_id = up.start_kernel()
    assert up.ids() == [kernel_id]
    up.stop()
    assert up.alive() == set()


def _private(file: Path) -> bool:
    return stat.S_IMODE(file.lstat().st_mode) & 0o077 == 0


def _proc(pid: int, name: str) -> str:
    """A file of /proc; empty when the process has just ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())
