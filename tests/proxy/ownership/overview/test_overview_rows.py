"""Rows from records and evidence, as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast_protocol.kernel_records import Endpoint, KernelRecord, KernelState
from holdfast_protocol.records import LauncherRecord, ProxyRecord
from holdfast_proxy.cluster import KernelModel
from holdfast_proxy.ownership.calls.calling import Answer
from holdfast_proxy.ownership.calls.keepers import KeeperState, LogState
from holdfast_proxy.ownership.overview import rows
from holdfast_proxy.ownership.overview.etcd_probe import without_userinfo
from holdfast_proxy.ownership.overview.peer_states import clock_skew, read_state

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def record(state: KernelState = KernelState.RUNNING, **changes: Any) -> KernelRecord:
    values: dict[str, Any] = {
        "spec_name": "python3",
        "user": "ada",
        "launcher_id": "node-1",
        "nonce": "n",
        "digest": "d",
        "state": state,
        "changed": "2026-01-02T11:59:00.000000Z",
        "sealed_launch": "s",
        "endpoint": Endpoint(host="127.0.0.1", port=1),
        "sealed_credential": "s",
        "epoch": "e",
        "incarnation": 1,
        "reason": "it ended" if state is KernelState.DEAD else None,
    }
    return KernelRecord(**{**values, **changes})


MODEL = KernelModel("k", "python3", "2026-01-02T11:59:30.000000Z", "busy", 2)
KEEPER = KeeperState(
    nonce="n",
    epoch="e",
    incarnation=3,
    execution_state="idle",
    reason=None,
    last_activity="2026-01-02T11:59:59.000000Z",
    connections=5,
    kernel_session=None,
    log=LogState(size=10, limit=100, head=7, floor=2, lost=0),
)


def row(found: KernelRecord, model: KernelModel = MODEL, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "owner": "p1",
        "keeper": None,
        "silent": False,
        "launcher_known": True,
    }
    return rows.kernel_row("k", found, model, **{**values, **changes})


def test_the_keepers_word_is_newer_than_the_launchers() -> None:
    told = row(record(), keeper=KEEPER)
    assert (told.state, told.connections, told.incarnation) == ("idle", 5, 3)
    assert told.last_activity == "2026-01-02T11:59:59.000000Z"
    assert (told.log.size, told.log.limit, told.log.head, told.log.floor) == (10, 100, 7, 2)
    heard = row(record())
    assert (heard.state, heard.connections, heard.log) == ("busy", 2, None)
    assert heard.started == heard.changed == "2026-01-02T11:59:00.000000Z"


@pytest.mark.parametrize(
    ("found", "model", "changes", "state", "words"),
    [
        (record(KernelState.STARTING), MODEL, {}, "busy", "being started by launcher 'node-1'"),
        (
            record(KernelState.STARTING),
            MODEL,
            {"launcher_known": False},
            "busy",
            "waiting for launcher 'node-1' to come back",
        ),
        (record(KernelState.DELETING), MODEL, {}, "deleting", None),
        (record(), MODEL, {"silent": True}, "unreachable", "neither its keeper"),
        (
            record(KernelState.DEAD),
            replace(MODEL, execution_state="dead", reason="it ended"),
            {"silent": True, "keeper": KEEPER},
            "dead",
            "it ended",
        ),
    ],
)
def test_states(
    found: KernelRecord,
    model: KernelModel,
    changes: dict[str, Any],
    state: str,
    words: str | None,
) -> None:
    told = row(found, model, **changes)
    assert told.state == state
    assert (told.reason is None) if words is None else words in told.reason
    assert (told.started is None) == (found.state is not KernelState.RUNNING)


def test_of_the_dead_only_the_newest_are_listed() -> None:
    records = {
        f"d{n:03}": record(KernelState.DEAD, changed=f"2026-01-02T11:{n // 60:02}:{n % 60:02}Z")
        for n in range(rows.DEAD_LISTED + 10)
    }
    records["alive"] = record(changed="2026-01-01T00:00:00Z")
    found = list(rows.listed(records))
    assert found[0] == "alive"
    assert found[1:] == [f"d{n:03}" for n in range(10, rows.DEAD_LISTED + 10)]


def launcher(**changes: Any) -> LauncherRecord:
    values: dict[str, Any] = {
        "url": "https://n:1",
        "fingerprint": None,
        "sealed_access_token": "sealed",
        "boot_id": "b",
        "engine": "local",
        "labels": {},
        "capacity": {"kernels": 4},
        "kernelspecs_digest": "d",
    }
    return LauncherRecord(**{**values, **changes})


@pytest.mark.parametrize(
    ("trust", "heard", "alive"),
    [
        (True, {}, True),  # a lease that stands
        (False, {}, False),  # etcd is away and nobody heard it
        (False, {"n1": "2026-01-02T11:59:55Z"}, True),
        (False, {"n1": "2026-01-02T11:59:45Z"}, False),
        (False, {"n1": "nonsense"}, False),
    ],
)
def test_when_a_launcher_is_alive(trust: bool, heard: dict[str, str], alive: bool) -> None:
    found = rows.launcher_rows(
        {"n1": launcher()}, [], heard, now=NOON, trust_registered=trust, ttl=10.0
    )
    assert [(view.id, view.alive, view.capacity) for view in found] == [("n1", alive, 4)]


def test_a_launcher_that_is_gone_is_shown_for_its_kernels() -> None:
    records = [record(launcher_id="lost"), record(KernelState.DEAD, launcher_id="old")]
    found = rows.launcher_rows(
        {"n1": launcher(capacity={})}, records, {}, now=NOON, trust_registered=True, ttl=10.0
    )
    told = [(view.id, view.alive, view.kernels, view.capacity, view.url) for view in found]
    assert told == [("lost", False, 1, None, ""), ("n1", True, 0, None, "https://n:1")]


def test_the_latest_word_of_several() -> None:
    assert rows.latest({"a": "2026-01-02T01:00Z"}, {"a": "2026-01-02T02:00Z", "b": "x"}) == {
        "a": "2026-01-02T02:00Z",
        "b": "x",
    }


def test_no_secret_in_an_address() -> None:
    assert without_userinfo("https://user:pw@etcd:2379/x") == "https://etcd:2379/x"
    assert without_userinfo("etcd:2379") == "etcd:2379"


PEER = ProxyRecord(url="http://p:1", boot_id="boot", software="1")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"boot_id":"boot","status":"ready","tunnels":3,"time":"x"}', ("ready", 3)),
        (200, b'{"boot_id":"other","status":"ready","tunnels":3}', ("unreachable", None)),
        (200, b'{"boot_id":"boot","status":7}', ("degraded", None)),
        (404, b"", ("ready", None)),  # an earlier version
        (503, b'{"message":"this proxy is shutting down"}', ("draining", None)),
        (401, b"", ("degraded", None)),
    ],
)
def test_what_a_peer_says(status: int, body: bytes, expected: tuple[str, int | None]) -> None:
    state = read_state(Answer(status, {}, body), PEER, took=0.1, wall=0.0)
    assert (state.status, state.tunnels) == expected


def test_a_clock_that_is_ahead() -> None:
    wall = NOON.timestamp()
    assert clock_skew("2026-01-02T12:00:03Z", took=0.2, wall=wall) == pytest.approx(3.1)
    assert clock_skew("2026-01-02T12:00:03", took=0.0, wall=wall) == pytest.approx(3.0)
    assert clock_skew(None, took=0.0, wall=wall) is None
    assert clock_skew("later", took=0.0, wall=wall) is None
