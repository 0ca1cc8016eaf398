"""Restart, interrupt, delete, death: what reaches the keeper, how often, and what clients see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from holdfast_proxy.cluster import Dead, KeeperEndpoint
from holdfast_proxy.errors import Conflict, NotFound, Unavailable
from holdfast_proxy.store.contract import ModEquals, Put
from holdfast_proxy.store.memory import Link
from support.fake_launcher import Drop
from support.ownership_site import (
    JOIN,
    USER,
    Site,
    call,
    eventually,
    open_site,
    request,
    state_of,
)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        await opened.proxy("a")
        await opened.launcher()
        yield opened


def lose_answers(site: Site, kernel_id: str, word: str, times: int = 1) -> None:
    """The keeper acts and its answer does not come."""
    left = [True] * times

    async def hook(heard: str) -> None:
        if word in heard and left:
            left.pop()
            raise Drop

    site.keeper(kernel_id).after = hook


async def test_a_restart_with_an_id_acts_once_though_its_answer_is_lost(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    lose_answers(site, kernel_id, "restart")
    await a.cluster.restart_kernel(kernel_id, USER, call(request_id="once"))
    assert site.keeper(kernel_id).kernel.incarnation == 2
    await eventually(lambda: a.parts.cached(kernel_id).record.incarnation == 2)


async def test_a_restart_without_an_id_is_not_sent_twice(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    lose_answers(site, kernel_id, "restart")
    with pytest.raises(Unavailable):
        await a.cluster.restart_kernel(kernel_id, USER, call())
    assert site.keeper(kernel_id).count("restart") == 1


async def test_an_interrupt_without_an_id_is_not_sent_twice(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    lose_answers(site, kernel_id, "interrupt")
    with pytest.raises(Unavailable):
        await a.cluster.interrupt_kernel(kernel_id, USER, call())
    assert site.keeper(kernel_id).kernel.interrupts == 1


async def test_what_comes_before_an_interrupt_is_told_to_the_keeper(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    await a.cluster.interrupt_kernel(kernel_id, USER, call(after=(("s1", 7), ("s:2", 9))))
    assert site.keeper(kernel_id).after_headers == ["s1:7", "s:2:9"]


@pytest.mark.parametrize("what", ["restart", "delete", "interrupt"])
async def test_a_call_that_is_too_old_is_not_sent(site: Site, what: str) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    late = call(deadline=a.parts.clock.now() - 1)
    with pytest.raises(Unavailable):
        await getattr(a.cluster, f"{what}_kernel")(kernel_id, USER, late)
    keeper = site.keeper(kernel_id)
    assert (keeper.count("restart"), keeper.count("shutdown"), keeper.kernel.interrupts) == (0,) * 3
    assert state_of(a, kernel_id) == "running"


async def test_a_deleted_kernel_is_gone_everywhere_and_stays_so(site: Site) -> None:
    a = site.proxies[0]
    b = await site.proxy("b")
    kernel_id = await site.running(a)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    assert kernel_id not in site.launchers[0].keepers
    await eventually(lambda: state_of(b, kernel_id) == "tombstone")
    for proxy in (a, b):
        with pytest.raises(NotFound):
            await proxy.cluster.delete_kernel(kernel_id, USER, call())
        with pytest.raises(NotFound):
            await proxy.cluster.get_kernel(kernel_id, USER)
        with pytest.raises(NotFound):
            await proxy.cluster.locate(kernel_id, USER)
        assert await proxy.cluster.list_kernels(USER) == []
    with pytest.raises(Conflict):
        await b.cluster.start_kernel(request(kernel_id))
    assert await a.parts.view.read_owner(kernel_id) is None


async def test_an_end_of_ownership_that_was_meant_is_no_warning(site: Site) -> None:
    a = site.proxies[0]
    deleted, left = await site.running(a), await site.running(a)
    with capture_logs() as lines:
        await a.cluster.delete_kernel(deleted, USER, call())
        await eventually(lambda: a.parts.view.owner(deleted) is None)
        await a.cluster.drain()
        await eventually(lambda: a.parts.view.owner(left) is None)
    assert [line for line in lines if line["log_level"] in ("warning", "error")] == []


async def test_an_owner_that_is_overtaken_warns(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    with capture_logs() as lines:
        a.parts.ownership.overtaken(kernel_id, a.token(kernel_id))
    assert [line["log_level"] for line in lines if line["event"] == "ownership lost"] == ["warning"]


async def test_a_deletion_is_finished_by_another_owner(site: Site) -> None:
    """The first owner dies after it had written ``deleting``."""
    a = site.proxies[0]
    b = await site.proxy("b")
    kernel_id = await site.running(a)
    reached = asyncio.Event()
    dying = True

    async def hang(heard: str) -> None:
        if dying and "shutdown" in heard:
            reached.set()
            await asyncio.sleep(30)

    site.keeper(kernel_id).before = hang
    deleting = asyncio.create_task(a.cluster.delete_kernel(kernel_id, USER, call()))
    await asyncio.wait_for(reached.wait(), 10)
    dying = False
    lease = a.parts.member._lease.lease_id
    await a.kill()
    await asyncio.gather(deleting, return_exceptions=True)
    assert site.server is not None
    site.server.revoke(lease)
    await eventually(lambda: state_of(b, kernel_id) == "tombstone")
    assert kernel_id not in site.launchers[0].keepers


async def test_a_deletion_whose_launcher_is_away_is_finished_later(site: Site) -> None:
    a, launcher = site.proxies[0], site.launchers[0]
    kernel_id = await site.running(a)

    async def refuse(_: str) -> None:
        raise Drop

    launcher.before = refuse
    await asyncio.wait_for(a.cluster.delete_kernel(kernel_id, USER, call()), 10)
    assert site.keeper(kernel_id).count("shutdown") == 1
    assert state_of(a, kernel_id) == "deleting"
    assert await a.cluster.list_kernels(USER) == []
    launcher.before = None
    await a.cluster._sweep.round()
    await eventually(lambda: state_of(a, kernel_id) == "tombstone")


async def test_a_death_that_the_launcher_reports_is_shown_then_forgotten(site: Site) -> None:
    a, launcher = site.proxies[0], site.launchers[0]
    b = await site.proxy("b")
    kernel_id = await site.running(a)
    await launcher.lose(kernel_id)
    await b.cluster.heartbeat(launcher.launcher_id, JOIN, launcher.heartbeat())
    await eventually(lambda: state_of(a, kernel_id) == "dead")
    for proxy in (a, b):
        found = await proxy.cluster.locate(kernel_id, USER)
        assert isinstance(found, Dead)
        assert "killed by the node" in found.reason
    model = await a.cluster.get_kernel(kernel_id, USER)
    assert (model.execution_state, model.reason) == ("dead", "killed by the node")
    with pytest.raises(NotFound):
        await a.cluster.restart_kernel(kernel_id, USER, call())
    real = a.parts.clock.wall
    object.__setattr__(a.parts.clock, "wall", lambda: real() + 61)
    with pytest.raises(NotFound):
        await a.cluster.get_kernel(kernel_id, USER)
    assert await a.cluster.list_kernels(USER) == []
    await a.cluster.delete_kernel(kernel_id, USER, call())
    assert state_of(a, kernel_id) == "tombstone"


async def test_a_report_about_another_start_kills_nothing(site: Site) -> None:
    a, launcher = site.proxies[0], site.launchers[0]
    kernel_id = await site.running(a)
    beat = launcher.heartbeat()
    beat["kernels"][kernel_id] = {"nonce": "an older start", "alive": False, "reason": "gone"}
    await a.cluster.heartbeat(launcher.launcher_id, JOIN, beat)
    assert isinstance(await a.cluster.locate(kernel_id, USER), KeeperEndpoint)


async def test_a_launcher_cannot_kill_anothers_kernel(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    evil = await site.launcher("evil")
    beat = evil.heartbeat()
    nonce = site.keeper(kernel_id).nonce
    beat["kernels"] = {kernel_id: {"nonce": nonce, "alive": False, "reason": "because"}}
    await a.cluster.heartbeat("evil", JOIN, beat)
    assert isinstance(await a.cluster.locate(kernel_id, USER), KeeperEndpoint)
    assert state_of(a, kernel_id) == "running"


async def test_a_keeper_that_was_replaced_is_found_again(site: Site) -> None:
    """By the owner, who writes it down, and by another proxy, who cannot but asks the launcher."""
    a = site.proxies[0]
    b = await site.proxy("b")
    kernel_id = await site.running(a)
    before = await b.cluster.locate(kernel_id, USER)
    assert isinstance(before, KeeperEndpoint)
    new = await site.launchers[0].adopt(kernel_id)
    await b.cluster.report_unreachable(before, "refused")
    after = await b.cluster.locate(kernel_id, USER)
    assert isinstance(after, KeeperEndpoint)
    assert (after.port, after.credential) == (new.port, new.credential)
    await a.cluster.report_unreachable(before, "refused")
    assert a.parts.cached(kernel_id).record.epoch == new.epoch
    await eventually(lambda: b.parts.cached(kernel_id).record.epoch == new.epoch)


async def test_an_unreachable_kernel_is_not_dead_without_evidence(site: Site) -> None:
    a, launcher = site.proxies[0], site.launchers[0]
    kernel_id = await site.running(a)
    endpoint = await a.cluster.locate(kernel_id, USER)
    assert isinstance(endpoint, KeeperEndpoint)
    await launcher.close()  # and its keepers: the node is gone
    await a.cluster.report_unreachable(endpoint, "no route")
    with pytest.raises(Unavailable):
        await a.cluster.get_kernel(kernel_id, USER)
    assert isinstance(await a.cluster.locate(kernel_id, USER), KeeperEndpoint)
    assert [m.id for m in await a.cluster.list_kernels(USER)] == [kernel_id]
    assert state_of(a, kernel_id) == "running"


async def test_after_the_grace_an_unreachable_kernel_is_dead() -> None:
    async with open_site(node_grace=10.0) as site:
        a = await site.proxy("a")
        launcher = await site.launcher()
        kernel_id = await site.running(a)
        await launcher.close()
        sweep = a.cluster._sweep
        for _ in range(20):
            sweep._round_at -= 3.0
            sweep._probed.clear()
            if state_of(a, kernel_id) == "dead":
                break
            await sweep.round()
        found = await a.cluster.locate(kernel_id, USER)
        assert isinstance(found, Dead)
        assert "could not be reached" in found.reason


async def test_a_kernel_that_its_keeper_calls_dead_is_dead(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    kernel = site.keeper(kernel_id).kernel
    kernel.execution_state, kernel.reason = "dead", "it crashed five times"
    a.cluster._sweep._probed.clear()
    await a.cluster._sweep.round()
    assert await a.cluster.locate(kernel_id, USER) == Dead("it crashed five times")
    real = a.parts.clock.wall
    object.__setattr__(a.parts.clock, "wall", lambda: real() + 61)
    await a.cluster._sweep.round()
    assert kernel_id not in site.launchers[0].keepers  # its keeper is not left behind


async def test_wait_changed_returns_when_the_record_changes(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    waiting = asyncio.create_task(a.cluster.wait_changed(kernel_id, 30))
    await asyncio.sleep(0)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    await asyncio.wait_for(waiting, 5)
    await a.cluster.wait_changed(kernel_id, 0.01)


async def test_the_list_has_what_another_proxy_has_just_started(site: Site) -> None:
    """No eviction by a list that lags: the list catches up with the store first."""
    a = site.proxies[0]
    b = await site.proxy("b")
    for number in range(5):
        kernel_id = f"{number}b6f1d6e-0000-4000-8000-000000000000"
        await a.cluster.start_kernel(request(kernel_id))
        assert kernel_id in {model.id for model in await b.cluster.list_kernels(USER)}


async def test_an_unreadable_record_makes_no_partial_list(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    key = a.parts.writer.key("3b6f1d6e-0000-4000-8000-000000000000")
    await a.store.txn([ModEquals(key, 0)], [Put(key, b'{"version":99}')])
    await eventually(lambda: bool(a.parts.view.unreadable_kernels))
    with pytest.raises(Unavailable):
        await a.cluster.list_kernels(USER)
    assert isinstance(await a.cluster.locate(kernel_id, USER), KeeperEndpoint)


async def test_the_timeline_tells_what_happened(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    prefix = a.parts.timeline._keys.prefix + "events/"

    async def told() -> bool:
        lines = [kv.value for kv in await a.store.range(prefix)]
        return all(any(word in line for line in lines) for word in (b"started", b"deleted"))

    await eventually(told)


async def test_a_write_that_is_lost_in_the_middle_of_a_delete_is_repeated(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    a.link.next_links.append(Link.ANSWER_LOST)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    assert state_of(a, kernel_id) == "tombstone"
