"""Every command against a real cluster, as a person or a probe runs it: well, degraded, gone.

``make test-commands``. One cluster for all of it, in the order in which it is taken apart.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.cluster import Cluster, clean_env
from support.processes import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
_FAILING = "raise SystemExit('no module named nonsense')"
BROKEN = {
    "argv": [sys.executable, "-c", _FAILING, "{connection_file}"],
    "display_name": "Broken",
    "language": "python",
}


@dataclass
class Ran:
    """One run of the command; ``code`` its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Commands:
    """Runs `holdfast` as a process of its own against ``cluster``."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.token_file = cluster.base / "token"
        self.token_file.write_text(cluster.token)
        self.token_file.chmod(0o600)

    def __call__(self, *args: str, seconds: float = 60, **env: str) -> Ran:
        ran = subprocess.run(
            [sys.executable, "-m", "holdfast_proxy.cli", *args],
            env=clean_env(
                HOLDFAST_URL=" ".join(self.cluster.proxy_urls),
                HOLDFAST_TOKEN_FILE=str(self.token_file),
                XDG_STATE_HOME=str(self.cluster.base / "none"),
                **env,
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert self.cluster.token not in ran.stdout + ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def start_kernel(self, spec: str = "python3", *, proxy: int = 0) -> str:
        body = json.dumps({"name": spec}).encode()
        request = urllib.request.Request(
            f"{self.cluster.proxy_urls[proxy]}/api/kernels",
            data=body,
            headers={"Authorization": f"token {self.cluster.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return str(json.load(answer)["id"])
        except urllib.error.HTTPError as error:
            if spec == "broken":
                return str(json.load(error)["message"])
            raise


@pytest.fixture(scope="module")
def holdfast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    base = tmp_path_factory.mktemp("commands")
    specs = base / "specs"
    (specs / "broken").mkdir(parents=True)
    (specs / "broken" / "kernel.json").write_text(json.dumps(BROKEN))
    toml = f'kernelspec_dirs = ["{specs}"]'
    cluster = Cluster(base / "cluster", proxies=3, launcher_toml=toml).start()
    try:
        yield Commands(cluster)
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def kernel(holdfast: Commands) -> str:
    return holdfast.start_kernel()


def test_a_cluster_that_is_well(holdfast: Commands, kernel: str) -> None:
    ran = holdfast("list")
    assert ran.code == 0, ran
    assert all(f"proxy-{n}" in ran.out for n in range(3))
    assert "1 kernel: 1 idle" in ran.out
    assert ran.out == "\n".join(line.rstrip() for line in ran.out.splitlines()) + "\n"
    document = holdfast("list", "--json").json
    assert [proxy["status"] for proxy in document["proxies"]] == ["ready"] * 3
    assert document["troubles"] == []
    assert document["launchers"][0]["alive"]
    assert holdfast("list", HOLDFAST_TOKEN="wrong").code == 1


def test_kernels(holdfast: Commands, kernel: str) -> None:
    assert kernel[:8] in holdfast("kernels").out
    shown = holdfast("kernels", "show", kernel[:6])
    assert (shown.code, kernel in shown.out, "started" in shown.out) == (0, True, True)
    row = holdfast("kernels", "show", kernel, "--json").json
    assert row["log"]["limit"] > 2**30
    assert [line["kind"] for line in row["timeline"]] == ["started"]
    log = holdfast("kernels", "log", kernel[:6], "--json")
    seqs = [json.loads(line)["seq"] for line in log.out.splitlines()]
    assert seqs == sorted(seqs)
    assert seqs
    logs = holdfast("kernels", "logs", kernel[:6])
    assert (logs.code, "keeper.ready" in logs.out) == (0, True)


def test_a_start_that_failed_says_why(holdfast: Commands, kernel: str) -> None:
    said = holdfast.start_kernel("broken")
    assert "no module named nonsense" in said, "the start itself says it"
    rows = holdfast("kernels", "--json").json["kernels"]
    (row,) = [row for row in rows if row["name"] == "broken"]
    assert row["state"] == "dead"
    assert "no module named nonsense" in row["reason"]
    logs = holdfast("kernels", "logs", row["id"][:8])
    assert (logs.code, "no module named nonsense" in logs.out) == (0, True)
    history = holdfast("history", "--kernel", row["id"], "--json").json["timeline"]
    assert [line["kind"] for line in history] == ["start failed"]


def test_the_doctor_of_a_cluster_that_is_well(holdfast: Commands, kernel: str) -> None:
    ran = holdfast("doctor", "--config", str(holdfast.cluster.base / "proxy-0.toml"))
    assert ran.code == 0, ran
    assert "problem" not in ran.out
    findings = holdfast("doctor", "--json").json["findings"]
    subjects = {finding["subject"] for finding in findings if finding["level"] == "ok"}
    assert {"proxy-0", "proxy-1", "proxy-2", "launcher-0", "clocks", "versions"} <= subjects


def test_watching_and_following_end_with_ctrl_c(holdfast: Commands, kernel: str) -> None:
    for args in (("list", "--watch", "0.3", "--json"), ("kernels", "log", kernel, "--follow")):
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast_proxy.cli", *args],
            env=clean_env(
                HOLDFAST_URL=holdfast.cluster.proxy_urls[0], HOLDFAST_TOKEN=holdfast.cluster.token
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first
            if args[0] == "list":
                assert json.loads(process.stdout.readline())["version"] == 1
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_a_drain_is_seen_through(holdfast: Commands, kernel: str) -> None:
    owned = holdfast.start_kernel(proxy=2)
    rows = holdfast("list", "--json").json["kernels"]
    owner = next(row["owner"] for row in rows if row["id"] == owned)
    ran = holdfast("drain", owner, "--json")
    assert ran.code == 0, ran
    assert (ran.json["drained"], ran.json["waiting"]) == (True, 0)
    assert ran.json["seconds"] < 10
    number = int(owner.rpartition("-")[2])
    assert holdfast.cluster.proxies[number].wait(10) == 0
    rows = holdfast("list", "--json").json["kernels"]
    after = next(row["owner"] for row in rows if row["id"] == owned)
    assert after not in (None, owner)
    told = holdfast("history", "--json").json["timeline"]
    assert any(t["kind"] == "proxy draining" and t["proxy"] == owner for t in told)
    taken = [t for t in told if t["kind"] == "taken over" and t["kernel"] == owned]
    assert (taken[-1]["from"], taken[-1]["why"]) == (owner, "it gave the kernel up")
    holdfast.cluster.start_proxy(number)


def test_one_proxy_killed_is_degraded_and_then_history(holdfast: Commands, kernel: str) -> None:
    rows = holdfast("list", "--json").json["kernels"]
    owner = next(row["owner"] for row in rows if row["id"] == kernel)
    number = int(owner.rpartition("-")[2])
    holdfast.cluster.proxies[number].kill()
    ran = holdfast("list")
    assert (ran.code, holdfast.cluster.proxy_urls[number] in ran.out) == (3, True), ran

    def taken() -> list[dict[str, Any]]:
        told = holdfast("history", "--kernel", kernel[:8], "--json").json["timeline"]
        return [line for line in told if line["kind"] == "taken over" and line["from"] == owner]

    (line,) = wait_until(taken, seconds=30, what="the takeover on the timeline")
    assert line["why"] in ("its port refuses connections", "its lease is gone")
    doctor = holdfast("doctor")
    assert (doctor.code, "problem" in doctor.out) == (3, True)
    holdfast.cluster.start_proxy(number)
    wait_until(lambda: holdfast("list").code == 0, seconds=30, what="all well again")


def test_without_etcd_it_is_degraded_and_says_so(holdfast: Commands, kernel: str) -> None:
    holdfast.cluster.etcd.kill()
    wait_until(
        lambda: not holdfast("list", "--json").json["etcd"]["reachable"],
        seconds=20,
        what="etcd seen to be away",
    )
    ran = holdfast("list")
    assert (ran.code, "etcd does not answer" in ran.out) == (3, True)
    assert "kernel" in ran.out, "what was known is shown"
    assert kernel[:8] in holdfast("kernels").out
    assert holdfast("kernels", "log", kernel[:8]).code == 0, "a log needs no etcd"
    doctor = holdfast("doctor", "--json")
    assert doctor.code == 3
    (etcd,) = [f for f in doctor.json["findings"] if f["subject"] == "etcd"]
    assert (etcd["level"], "--new-era" in etcd["todo"]) == ("problem", True)


def test_after_etcd_was_lost_a_new_era_lets_proxies_act_again(
    holdfast: Commands, kernel: str
) -> None:
    """Its data is gone: revisions begin again below what the keepers have acknowledged."""
    shutil.rmtree(holdfast.cluster.base / "etcd")
    holdfast.cluster.start_etcd()
    wait_until(
        lambda: holdfast("list", "--json").json["etcd"]["reachable"], seconds=30, what="etcd back"
    )
    config = str(holdfast.cluster.base / "proxy-0.toml")
    refused = holdfast("doctor", "--new-era", "--config", config)
    assert (refused.code, "Say --yes" in refused.err) == (1, True)
    assert holdfast("list", "--json").json["era"] == 1
    assert not restarted(holdfast, kernel), "the keeper refuses tokens of an etcd that began anew"
    raised = holdfast("doctor", "--new-era", "--yes", "--config", config)
    assert raised.code == 0, raised
    assert "the era is 2 now" in raised.out
    assert holdfast("list", "--json").json["era"] == 2
    wait_until(lambda: restarted(holdfast, kernel), seconds=60, what="the kernel restarted")


def restarted(holdfast: Commands, kernel: str) -> bool:
    """Whether a restart, which needs a token that the keeper takes, has worked."""
    request = urllib.request.Request(
        f"{holdfast.cluster.proxy_urls[0]}/api/kernels/{kernel}/restart",
        data=b"",
        headers={
            "Authorization": f"token {holdfast.cluster.token}",
            "Holdfast-Request": f"r{time.monotonic_ns()}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(json.load(answer)["id"] == kernel)
    except urllib.error.HTTPError:
        return False


def test_a_frozen_proxy_does_not_hold_the_command_up(holdfast: Commands, kernel: str) -> None:
    frozen = holdfast.cluster.proxies[0]
    frozen.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        ran = holdfast("list", "--timeout", "1")
        assert time.monotonic() - began < 20
        assert (ran.code, "no answer" in ran.out) == (3, True), ran
    finally:
        frozen.signal(signal.SIGCONT)


def test_when_nobody_answers(holdfast: Commands, kernel: str) -> None:
    for proxy in holdfast.cluster.proxies:
        proxy.kill()
    for args in (("list",), ("history",), ("kernels",), ("drain", "proxy-0"), ("doctor",)):
        ran = holdfast(*args)
        assert ran.code == 4, (args, ran)
        assert "nothing listens there" in ran.err + ran.out
