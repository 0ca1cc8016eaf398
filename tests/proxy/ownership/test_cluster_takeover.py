"""Two proxies, one store: who takes over when, and that the old owner does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast_protocol.fencing import Token
from holdfast_protocol.ownership import Verdict
from holdfast_proxy.cluster import KeeperEndpoint, Readiness
from holdfast_proxy.errors import Conflict, Misdirected, ProxyError, StaleToken, Unavailable
from holdfast_proxy.ownership.kernels.writes import WriteLost
from holdfast_proxy.store.memory import Link
from support.ownership_site import (
    USER,
    Proxy,
    Site,
    call,
    eventually,
    open_site,
    request,
    runs,
    state_of,
)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        yield opened


async def two(site: Site) -> tuple[Proxy, Proxy]:
    a, b = await site.proxy("a"), await site.proxy("b")
    await site.launcher()
    return a, b


async def test_a_lease_that_ends_moves_the_kernel_with_a_higher_token(site: Site) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    old = a.token(kernel_id)
    a.pause(site.server)
    await eventually(lambda: b.parts.ownership.effective(kernel_id))
    assert b.token(kernel_id) > old
    assert site.keeper(kernel_id).fenced.fence == b.token(kernel_id)
    assert site.launchers[0].fence_of(kernel_id).fence == b.token(kernel_id)


async def test_a_woken_proxy_has_no_effect(site: Site) -> None:
    """It held a delete and a restart; both are refused, and nothing reached the kernel."""
    a, b = await two(site)
    kernel_id = await site.running(a)
    keeper = site.keeper(kernel_id)
    a.pause(site.server)
    await eventually(lambda: b.parts.ownership.effective(kernel_id))
    with pytest.raises(ProxyError) as restarted:
        await a.cluster.restart_kernel(kernel_id, USER, call())
    with pytest.raises(ProxyError) as deleted:
        await a.cluster.delete_kernel(kernel_id, USER, call())
    assert {restarted.value.status, deleted.value.status} <= {409, 503}
    assert keeper.count("restart") == keeper.count("shutdown") == 0
    assert site.launchers[0].count("delete") == 0
    a.wake()
    await eventually(lambda: a.cluster.readiness()[0] is Readiness.READY)
    assert a.token(kernel_id) is None
    await eventually(lambda: not a.parts.member.held_up)
    model = await a.cluster.restart_kernel(kernel_id, USER, call())  # asked anew: by the owner
    assert model.execution_state == "idle"
    assert keeper.count("restart") == 1


async def test_a_stale_token_is_refused_by_the_keeper_itself(site: Site) -> None:
    """Even when the old owner notices nothing: no lease check, no watch, only the token."""
    a, b = await two(site)
    kernel_id = await site.running(a)
    old = a.token(kernel_id)
    entry = a.parts.cached(kernel_id)
    endpoint = a.parts.endpoints.of(kernel_id, entry)
    a.pause(site.server, seconds=0.0)
    await eventually(lambda: b.parts.ownership.effective(kernel_id))
    with pytest.raises(StaleToken):
        await a.parts.keepers.restart(endpoint, old, call(), guard=lambda: None)
    with pytest.raises(StaleToken):
        await a.parts.launcher_client.end(
            a.parts.launchers.target("launcher-1"),
            kernel_id,
            old,
            timeout=5,
            guard=lambda: None,
        )
    assert site.keeper(kernel_id).count("restart") == 0


async def test_an_old_owners_write_is_lost(site: Site) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    old, entry = a.token(kernel_id), a.parts.cached(kernel_id)
    b_token = await _replace_owner(site, b, kernel_id)
    with pytest.raises(WriteLost):
        await a.parts.writer.put(kernel_id, entry, entry.record, token=old)
    assert b_token > old


async def _replace_owner(site: Site, proxy: Proxy, kernel_id: str) -> Token:
    """As after evidence: ``proxy`` swaps the owner key although the owner has its lease."""
    seen = await proxy.parts.view.read_owner(kernel_id)
    token = await proxy.parts.ownership._swap(kernel_id, "claim", seen.revision)
    assert token is not None
    return token


async def test_a_refused_port_is_enough_where_it_had_answered(site: Site) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    peers = b.cluster._peers
    await eventually(lambda: (p := peers._peers.get("a")) is not None and p.connected)
    await a.kill()  # its lease stands for five seconds more
    await eventually(lambda: b.token(kernel_id) is not None, within=4)
    assert "a" in b.parts.view.proxies


async def test_a_firewall_is_not_a_death_for_long(site: Site) -> None:
    """The port refuses, the lease is renewed: after that the rule is off for this peer."""
    a, b = await two(site)
    kernel_id = await site.running(a)
    peers = b.cluster._peers
    await eventually(lambda: (p := peers._peers.get("a")) is not None and p.connected)
    await a.close_port()
    await eventually(lambda: b.token(kernel_id) is not None, within=4)
    await eventually(lambda: a.token(kernel_id) is None)  # a is told, and lets go
    b.moved.ahead += 8
    await eventually(lambda: peers._peers["a"].cleared)
    assert peers.verdict("a") is Verdict.ALIVE


async def test_a_peer_that_never_answered_is_waited_for(site: Site) -> None:
    a = await site.proxy("a")
    await site.launcher()
    kernel_id = await site.running(a)
    await a.close_port()
    b = await site.proxy("b")
    await eventually(lambda: runs(b, kernel_id))
    await b.cluster._peers.ask({"a": b.parts.view.proxies["a"]})
    assert b.cluster._peers.verdict("a") is Verdict.ALIVE
    assert b.token(kernel_id) is None


async def test_a_restarted_process_comes_up_at_once_and_reclaims(site: Site) -> None:
    a = await site.proxy("a")
    await site.launcher()
    kernel_id = await site.running(a)
    old = a.token(kernel_id)
    await a.kill()
    again = await asyncio.wait_for(site.proxy("a", port=a.port), 3)
    assert again.cluster.readiness()[0] is Readiness.READY
    await eventually(lambda: again.parts.ownership.effective(kernel_id))
    assert again.token(kernel_id) > old


async def test_a_former_process_of_the_same_id_stays_out(site: Site) -> None:
    a = await site.proxy("a")
    await site.launcher()
    kernel_id = await site.running(a)
    a.link.link = Link.REFUSED
    again = await site.proxy("a")
    await eventually(lambda: again.token(kernel_id) is not None)
    a.link.link = Link.UP
    await eventually(lambda: a.cluster.readiness()[0] is Readiness.NOT_READY)
    with pytest.raises(ProxyError):
        await a.cluster.delete_kernel(kernel_id, USER, call())
    assert again.cluster.readiness()[0] is Readiness.READY


async def test_drain_hands_the_kernels_over_and_ends_none(site: Site) -> None:
    a, b = await two(site)
    kernels = [await site.running(a) for _ in range(3)]
    await a.cluster.drain()
    assert a.cluster.readiness()[0] is Readiness.NOT_READY
    await eventually(lambda: all(b.token(name) is not None for name in kernels))
    assert all(site.keeper(name).count("shutdown") == 0 for name in kernels)
    assert "a" not in b.parts.view.proxies


async def test_many_kernels_of_a_dead_proxy_are_all_taken(site: Site) -> None:
    a, b = await two(site)
    c = await site.proxy("c")
    kernels = [await site.running(a) for _ in range(12)]
    a.pause(site.server)
    await eventually(
        lambda: all((b.token(k) is None) != (c.token(k) is None) for k in kernels), within=15
    )


async def test_calls_are_passed_on_to_the_owner_once(site: Site) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    model = await b.cluster.restart_kernel(kernel_id, USER, call(request_id="r1"))
    assert model.id == kernel_id
    assert site.keeper(kernel_id).kernel.incarnation == 2
    with pytest.raises(Misdirected) as told:
        await b.cluster.restart_kernel(kernel_id, USER, call(forwarded_by="c"))
    assert told.value.owner == "a"
    await b.cluster.delete_kernel(kernel_id, USER, call())
    await eventually(lambda: state_of(b, kernel_id) == "tombstone")
    assert b.token(kernel_id) is None


async def test_a_call_waits_through_a_takeover(site: Site) -> None:
    """The owner is gone without evidence; the call succeeds once its lease has ended."""
    a, b = await two(site)
    kernel_id = await site.running(a)
    peers = b.cluster._peers

    async def nothing(others: object) -> None:
        return

    peers.ask = nothing  # type: ignore[method-assign]
    peers._peers.clear()
    lease = a.parts.member._lease.lease_id
    await a.kill()
    waiting = asyncio.create_task(b.cluster.restart_kernel(kernel_id, USER, call(request_id="r")))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    site.server.revoke(lease)
    model = await asyncio.wait_for(waiting, 10)
    assert model.execution_state == "idle"
    assert site.keeper(kernel_id).count("restart") == 1


@pytest.mark.parametrize("request_id", ["r1", None])
async def test_a_stopped_owner_is_not_waited_for_longer_than_its_lease(
    site: Site, request_id: str | None
) -> None:
    """It takes the request and says nothing. With an id the new owner acts, once; without one
    nobody can know whether it has acted, so it is not sent again."""
    a, b = await two(site)
    kernel_id = await site.running(a)
    keeper, reached, go = site.keeper(kernel_id), asyncio.Event(), asyncio.Event()

    async def hold(heard: str) -> None:
        if "restart" in heard and not reached.is_set():
            reached.set()
            await go.wait()

    keeper.before = hold
    asked = asyncio.create_task(
        b.cluster.restart_kernel(kernel_id, USER, call(request_id=request_id))
    )
    await asyncio.wait_for(reached.wait(), 10)
    a.pause(site.server)
    if request_id is None:
        with pytest.raises(Unavailable, match="may have acted"):
            await asyncio.wait_for(asked, 10)
    else:
        await asyncio.wait_for(asked, 10)
    await eventually(lambda: b.parts.ownership.effective(kernel_id))
    go.set()  # what the old owner had sent arrives now, below the acknowledged token
    await asyncio.sleep(0.1)
    assert keeper.count("restart") == (0 if request_id is None else 1)


async def test_a_takeover_that_does_not_come_is_unavailable() -> None:
    async with open_site(takeover_wait=0.5) as site:
        a, b = await two(site)
        kernel_id = await site.running(a)
        b.cluster._lifecycle._forwarder._cluster_key = "another cluster's"
        with pytest.raises(Unavailable):
            await b.cluster.restart_kernel(kernel_id, USER, call())
        assert site.keeper(kernel_id).count("restart") == 0


@pytest.mark.parametrize("link", [Link.ANSWER_LOST, Link.REQUEST_LOST])
async def test_a_claim_of_unknown_outcome_is_recognized_by_its_id(site: Site, link: Link) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    b.parts.ownership._closing = True  # no takeover but the one below
    a.pause(site.server)
    await eventually(lambda: b.parts.view.owner(kernel_id) is None)
    b.parts.ownership._closing = False
    b.link.next_links.append(link)
    token = await b.parts.ownership.ensure(kernel_id)
    owner = await b.parts.view.read_owner(kernel_id)
    assert token == Token(b.parts.member.era, owner.revision)


async def test_a_proxy_of_another_mode_may_not_join(site: Site) -> None:
    a = await site.proxy("a")
    other = await site.proxy("b", started=False)
    other.parts.member._mode = "active-passive"
    with pytest.raises(Conflict, match="mode"):
        await other.cluster.start()
    assert "b" not in a.parts.view.proxies


# --- etcd away ---------------------------------------------------------------------------------


async def test_without_etcd_open_notebooks_and_the_owners_restarts_go_on(site: Site) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    for proxy in (a, b):
        proxy.link.link = Link.REFUSED
        proxy.moved.ahead += 5  # past fence_at
    await eventually(lambda: not a.parts.member.held_up and not b.parts.member.held_up)
    assert a.cluster.readiness()[0] is Readiness.DEGRADED
    for proxy in (a, b):
        assert isinstance(await proxy.cluster.locate(kernel_id, USER), KeeperEndpoint)
        assert [m.id for m in await proxy.cluster.list_kernels(USER)] == [kernel_id]
        assert (await proxy.cluster.get_kernel(kernel_id, USER)).execution_state == "idle"
        await proxy.cluster.interrupt_kernel(kernel_id, USER, call())
    keeper = site.keeper(kernel_id)
    assert keeper.kernel.interrupts == 2
    await a.cluster.restart_kernel(kernel_id, USER, call())
    await b.cluster.restart_kernel(kernel_id, USER, call())  # passed on to the owner
    assert keeper.count("restart") == 2
    for proxy in (a, b):
        with pytest.raises(Unavailable) as refused:
            await proxy.cluster.delete_kernel(kernel_id, USER, call())
        assert refused.value.retry_after is not None
        with pytest.raises(Unavailable):
            await proxy.cluster.start_kernel(request("0b6f1d6e-0000-4000-8000-000000000000"))
        with pytest.raises(Unavailable):  # never NotFound without a linearizable read
            await proxy.cluster.get_kernel("1b6f1d6e-0000-4000-8000-000000000000", USER)
        with pytest.raises(Unavailable):
            await proxy.cluster.locate("1b6f1d6e-0000-4000-8000-000000000000", USER)
    assert keeper.count("shutdown") == 0


async def test_everything_resumes_when_etcd_is_back(site: Site) -> None:
    a, b = await two(site)
    kernel_id = await site.running(a)
    for proxy in (a, b):
        proxy.pause(site.server, seconds=10.0)
    for proxy in (a, b):
        proxy.wake()
    for proxy in (a, b):
        await eventually(lambda p=proxy: p.cluster.readiness()[0] is Readiness.READY)
    await eventually(lambda: (a.token(kernel_id) is None) != (b.token(kernel_id) is None))
    await site.running(b)


async def test_a_compacted_watch_lists_again(site: Site) -> None:
    a, b = await two(site)
    b.link.link = Link.REFUSED
    await a.cluster.start_kernel(request("2b6f1d6e-0000-4000-8000-000000000000"))
    kernel_id = "2b6f1d6e-0000-4000-8000-000000000000"
    site.server.compact(site.server.revision)
    assert not runs(b, kernel_id)
    b.link.link = Link.UP
    await eventually(lambda: runs(b, kernel_id))
