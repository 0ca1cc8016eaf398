"""Answers that a proxy must not take at their word: from peers, launchers, keepers, strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from holdfast_protocol.kernel_records import KernelEvent, advance, decode_kernel
from holdfast_proxy.errors import BadRequest, NotFound, StartFailed, Unauthorized, Unavailable
from holdfast_proxy.ownership.calls.calling import Answer
from holdfast_proxy.ownership.calls.keepers import KeeperError, KeeperState
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherError
from holdfast_proxy.store.memory import Link
from support.fake_launcher import FakeLauncher
from support.ownership_site import JOIN, USER, Proxy, Site, call, eventually, open_site, state_of


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        yield opened


async def owned_by_the_other(site: Site) -> tuple[Proxy, Proxy, str]:
    a, b = await site.proxy("a"), await site.proxy("b")
    await site.launcher()
    return a, b, await site.running(a)


def answered(proxy: Proxy, status: int, body: bytes = b"<html>nginx</html>") -> None:
    """What stands in front of every peer answers ``proxy`` instead of the peer."""
    ask = proxy.cluster._caller.call

    async def stand_between(method: str, target: Any, path: str, **more: Any) -> Answer:
        if path.startswith("/api/"):
            return Answer(status, {}, body)
        return await ask(method, target, path, **more)

    proxy.cluster._caller.call = stand_between  # type: ignore[method-assign]


@pytest.mark.parametrize("status", [404, 500, 502, 504])
@pytest.mark.parametrize("what", ["restart", "delete"])
async def test_what_is_not_the_owners_word_is_unavailable(
    site: Site, status: int, what: str
) -> None:
    """A load balancer's 404 or 500 says nothing about a kernel, and clients would drop it."""
    _, b, kernel_id = await owned_by_the_other(site)
    answered(b, status)
    act: Callable[..., Any] = getattr(b.cluster, f"{what}_kernel")
    with pytest.raises(Unavailable):
        await act(kernel_id, USER, call(request_id="r"))
    assert state_of(b, kernel_id) == "running"


async def test_the_owners_own_words_are_passed_on(site: Site) -> None:
    a, b, kernel_id = await owned_by_the_other(site)
    answered(b, 500, b'{"reason": "start_failed", "message": "no memory"}')
    with pytest.raises(StartFailed, match="no memory"):
        await b.cluster.restart_kernel(kernel_id, USER, call())
    answered(b, 404, b'{"reason": "not_found", "message": "it is gone"}')
    b.link.link = Link.REFUSED
    with pytest.raises(Unavailable):  # nobody can say while etcd is away
        await b.cluster.restart_kernel(kernel_id, USER, call())
    b.link.link = Link.UP
    await a.cluster.delete_kernel(kernel_id, USER, call())
    await eventually(lambda: state_of(b, kernel_id) == "tombstone")
    with pytest.raises(NotFound):
        await b.cluster.restart_kernel(kernel_id, USER, call())


@pytest.mark.parametrize("request_id", ["r1", None])
async def test_an_owner_that_stops_in_a_deletion_is_not_waited_for(
    site: Site, request_id: str | None
) -> None:
    """It had written ``deleting`` and then stood still: the next owner finishes, and whoever
    asked hears of it long before the stopped one's answer could time out."""
    a, b, kernel_id = await owned_by_the_other(site)
    ask, reached = b.cluster._caller.call, asyncio.Event()

    async def never(method: str, target: Any, path: str, **more: Any) -> Answer:
        if not path.startswith("/api/"):
            return await ask(method, target, path, **more)
        entry = a.parts.cached(kernel_id)
        record = advance(entry.record, KernelEvent.DELETED, changed="2026-01-01T00:00:00.0Z")
        await a.parts.writer.put(kernel_id, entry, record, token=a.token(kernel_id))
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    b.cluster._caller.call = never  # type: ignore[method-assign]
    asked = asyncio.create_task(
        b.cluster.delete_kernel(kernel_id, USER, call(request_id=request_id))
    )
    await asyncio.wait_for(reached.wait(), 10)
    a.pause(site.server)
    with pytest.raises(NotFound):
        await asyncio.wait_for(asked, 15)
    assert state_of(b, kernel_id) == "tombstone"
    await eventually(lambda: b.parts.view.owner(kernel_id) is None)


async def test_a_claim_of_a_deleted_kernel_is_given_up(site: Site) -> None:
    a, b, kernel_id = await owned_by_the_other(site)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    await eventually(lambda: state_of(b, kernel_id) == "tombstone")
    await b.parts.ownership.ensure(kernel_id)  # as a call that came a moment too late
    assert b.token(kernel_id) is not None
    await b.cluster._sweep.round()
    assert b.token(kernel_id) is None
    assert await b.parts.view.read_owner(kernel_id) is None


WRONG: list[dict[str, Any]] = [
    {"reason": {}},
    {"nonce": 5},
    {"epoch": ["e"]},
    {"engine_handle": ["pid", 1]},
    {"endpoint": "127.0.0.1:1"},
    {"endpoint": {"host": 7, "port": 1}},
    {"endpoint": {"host": "127.0.0.1", "port": -1}},
]
HANDLE = {
    "nonce": "n",
    "spec": "s",
    "user": "u",
    "endpoint": {"host": "127.0.0.1", "port": 1},
    "credential": "c",
    "epoch": "e",
    "alive": True,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_handle_with_a_wrong_type_is_no_handle(wrong: dict[str, Any]) -> None:
    assert Handle.read(HANDLE).alive
    with pytest.raises(LauncherError):
        Handle.read(HANDLE | wrong)


@pytest.mark.parametrize(
    "wrong", [{"kernel_session": 5}, {"reason": []}, {"incarnation": -1}, {"last_activity": 1.0}]
)
def test_a_state_with_a_wrong_type_is_no_state(wrong: dict[str, Any]) -> None:
    state = {"nonce": "n", "epoch": "e", "incarnation": 1, "execution_state": "idle"}
    assert KeeperState.read(state).incarnation == 1
    with pytest.raises(KeeperError):
        KeeperState.read(state | wrong)


async def test_a_keeper_cannot_make_the_list_unreadable(site: Site) -> None:
    """It runs beside its user's code; everybody's list is read from the records."""
    a, b, kernel_id = await owned_by_the_other(site)
    keeper = site.keeper(kernel_id)
    honest = keeper.state
    keeper.state = lambda: honest() | {"kernel_session": 5}  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await a.cluster.restart_kernel(kernel_id, USER, call())
    found = await a.store.get(a.parts.writer.key(kernel_id))
    assert found is not None
    assert decode_kernel(found.value)
    assert [model.id for model in await b.cluster.list_kernels(USER)] == [kernel_id]


async def test_one_kernels_trouble_does_not_end_the_rounds(site: Site) -> None:
    a = await site.proxy("a")
    await site.launcher()
    bad, good = await site.running(a), await site.running(a)
    tended: list[str] = []

    async def tend(kernel_id: str, *_: object) -> None:
        tended.append(kernel_id)
        if kernel_id == bad:
            raise RuntimeError("not foreseen")

    a.cluster._sweep._tend = tend  # type: ignore[method-assign]
    await a.cluster._sweep.round()
    assert set(tended) == {bad, good}


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://[::1"},
        {"url": "ftp://127.0.0.1"},
        {"url": "http://10.1.2.3:8000"},
        {"url": "https://10.1.2.3:99999"},
        {"url": "https://10.1.2.3:8000", "fingerprint": "none"},
    ],
)
async def test_an_address_that_cannot_be_called_safely_is_refused(
    site: Site, changes: dict[str, str]
) -> None:
    a = await site.proxy("a")
    launcher = FakeLauncher()
    body = launcher.heartbeat(**{"url": "http://127.0.0.1:1", **changes})
    with pytest.raises(BadRequest):
        await a.cluster.heartbeat("launcher-1", JOIN, body)
    assert a.parts.launchers.record("launcher-1") is None


async def test_a_stranger_makes_no_launcher_wait(site: Site) -> None:
    """A wrong credential is checked against etcd, which may be slow; that is its own time."""
    a = await site.proxy("a")
    launcher = await site.launcher()
    beat = launcher.heartbeat()
    credential = (await a.cluster.heartbeat("launcher-1", JOIN, beat))["credential"]
    asked, go = asyncio.Event(), asyncio.Event()
    read = a.parts.view.read

    async def slow(*args: Any) -> Any:
        asked.set()
        await go.wait()
        return await read(*args)

    a.parts.view.read = slow
    stranger = asyncio.create_task(a.cluster.heartbeat("launcher-1", "no \udcff", beat))
    await asyncio.wait_for(asked.wait(), 5)
    answer = await asyncio.wait_for(a.cluster.heartbeat("launcher-1", credential, beat), 5)
    assert answer["proxies"]
    go.set()
    with pytest.raises(Unauthorized):
        await stranger
    with pytest.raises(Unauthorized):
        await a.cluster.heartbeat("launcher-2", "no", beat)
    assert set(a.parts.launchers._locks) == {"launcher-1"}


async def test_what_no_client_can_name_is_no_orphan(site: Site) -> None:
    a = await site.proxy("a")
    launcher = await site.launcher()
    report = {"nonce": "n", "alive": True}
    body = launcher.heartbeat(kernels={"../a": report, "": report, "kernel": report})
    await a.cluster.heartbeat(launcher.launcher_id, JOIN, body)
    assert a.cluster._orphans._looked == {}
