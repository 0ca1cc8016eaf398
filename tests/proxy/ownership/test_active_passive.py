"""active-passive: one proxy owns everything, the others serve what needs no owner and pass on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast_protocol.keys import Kind
from holdfast_protocol.records import ConfigRecord
from holdfast_proxy.cluster import KeeperEndpoint, Readiness
from holdfast_proxy.config import Mode
from holdfast_proxy.errors import BadRequest, Conflict, Misdirected, NotFound, Unavailable
from holdfast_proxy.ownership.member import Standing
from holdfast_proxy.store.contract import Delete, ModEquals, Put
from holdfast_proxy.store.memory import Link
from support.ownership_site import (
    JOIN,
    USER,
    Proxy,
    Site,
    call,
    eventually,
    open_site,
    request,
    state_of,
)

KERNEL = "0b6f8c1e-2f0e-4c64-9a44-0d5a3f3f7c11"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site(mode=Mode.ACTIVE_PASSIVE) as opened:
        yield opened


async def two(site: Site) -> tuple[Proxy, Proxy]:
    """(leader, passive), with a launcher."""
    leader = await site.proxy("a")
    await eventually(lambda: leader.parts.authority.may_own)
    passive = await site.proxy("b")
    await site.launcher()
    return leader, passive


async def test_one_leads_and_the_other_says_so_at_readyz(site: Site) -> None:
    leader, passive = await two(site)
    assert leader.cluster.readiness()[0] is Readiness.READY
    assert passive.cluster.readiness() == (Readiness.NOT_READY, "passive: a leads")
    assert not passive.parts.authority.may_own


async def test_every_call_works_at_the_passive_one_and_only_the_leader_owns(site: Site) -> None:
    leader, passive = await two(site)
    model = await passive.cluster.start_kernel(request(KERNEL))
    assert model.id == KERNEL
    await eventually(lambda: state_of(passive, KERNEL) == "running")
    assert (leader.parts.ownership.owned(), passive.parts.ownership.owned()) == ([KERNEL], [])
    assert isinstance(await passive.cluster.locate(KERNEL, USER), KeeperEndpoint)
    keeper = site.keeper(KERNEL)
    await passive.cluster.interrupt_kernel(KERNEL, USER, call())
    restarted = await passive.cluster.restart_kernel(KERNEL, USER, call())
    assert restarted.execution_state == "idle"
    await passive.cluster.delete_kernel(KERNEL, USER, call())
    assert (keeper.count("interrupt"), keeper.count("restart")) == (1, 1)
    with pytest.raises(NotFound):
        await leader.cluster.get_kernel(KERNEL, USER)


async def test_the_leaders_refusal_is_the_passive_ones_answer(site: Site) -> None:
    _, passive = await two(site)
    with pytest.raises(BadRequest) as error:
        await passive.cluster.start_kernel(request(KERNEL, spec_name="cobol"))
    assert error.value.reason == "unknown_kernelspec"


async def test_a_start_that_was_passed_on_is_not_passed_on_again(site: Site) -> None:
    _, passive = await two(site)
    with pytest.raises(Misdirected) as error:
        await passive.cluster.start_kernel(request(KERNEL, forwarded_by="a"))
    assert error.value.owner == "a"


@pytest.mark.parametrize("how", ["killed", "frozen", "drained"])
async def test_the_passive_one_takes_everything_over(site: Site, how: str) -> None:
    leader, passive = await two(site)
    kernel_id = await site.running(leader)
    old = leader.token(kernel_id)
    await eventually(lambda: "a" in passive.cluster._peers._peers)  # it has answered once
    if how == "killed":
        await leader.kill()
    elif how == "frozen":
        leader.pause(site.server)
    else:
        await leader.cluster.drain()
    await eventually(lambda: passive.parts.ownership.effective(kernel_id))
    assert passive.token(kernel_id) > old
    assert passive.cluster.readiness()[0] is Readiness.READY
    model = await passive.cluster.restart_kernel(kernel_id, USER, call())
    assert model.execution_state == "idle"


async def test_a_start_waits_through_the_election(site: Site) -> None:
    leader, passive = await two(site)
    await leader.close_port()
    starting = asyncio.create_task(passive.cluster.start_kernel(request(KERNEL)))
    site.server.revoke(leader.parts.member._lease.lease_id)
    leader.link.link = Link.REFUSED
    assert (await starting).id == KERNEL
    assert passive.parts.ownership.owned() == [KERNEL]


async def test_without_a_leader_a_start_is_told_to_come_again() -> None:
    async with open_site(mode=Mode.ACTIVE_PASSIVE, takeover_wait=0.3) as site:
        leader, passive = await two(site)
        await leader.close_port()  # and it keeps its lease: nobody may take over
        for proxy in site.proxies:
            proxy.parts.authority._resigned = proxy is passive
        with pytest.raises(Unavailable, match="the leader cannot be reached"):
            await passive.cluster.start_kernel(request(KERNEL))


async def test_a_leader_that_lost_the_key_gives_its_kernels_up(site: Site) -> None:
    """A firewall made it look dead: its lease stands, so nobody would take them from it."""
    leader, passive = await two(site)
    kernel_id = await site.running(leader)
    leader.parts.authority._resigned = True  # it does not stand again
    key = site.keys.leader
    seen = leader.parts.view.leader
    await passive.store.txn([ModEquals(key, seen.revision)], [Delete(key)])
    await eventually(lambda: passive.parts.ownership.effective(kernel_id))
    assert leader.parts.ownership.owned() == []
    assert leader.parts.member.holds
    assert leader.cluster.readiness() == (Readiness.NOT_READY, "passive: b leads")


async def test_a_claim_with_a_lost_leader_key_does_not_commit(site: Site) -> None:
    """Even when the old leader has seen nothing yet: the transaction compares the key."""
    leader, passive = await two(site)
    leader.link.hold_watches = True
    key, seen = site.keys.leader, leader.parts.view.leader
    leader.parts.view.apply = lambda found: None
    leader.parts.view.remove = lambda key, revision: None
    await passive.store.txn([ModEquals(key, seen.revision)], [Delete(key)])
    await eventually(lambda: passive.parts.authority.may_own)
    assert leader.parts.authority.may_own  # as far as it has seen
    with pytest.raises(Unavailable):  # no 409: the id is good, and the next one will take it
        await leader.cluster.start_kernel(request(KERNEL))
    with pytest.raises(Misdirected):  # the passive one that took it for the leader looks again
        await leader.cluster.start_kernel(request(KERNEL, forwarded_by="c"))
    assert await passive.store.get(site.keys.of(Kind.KERNEL, KERNEL)) is None


async def test_with_etcd_away_and_no_leader_clients_are_let_in(site: Site) -> None:
    leader, passive = await two(site)
    kernel_id = await site.running(leader)
    await eventually(lambda: "a" in passive.cluster._peers._peers)
    for proxy in site.proxies:
        proxy.link.link = Link.REFUSED
    await leader.close_port()
    passive.moved.ahead += 10.0
    await eventually(lambda: passive.cluster.readiness()[0] is Readiness.DEGRADED)
    assert isinstance(await passive.cluster.locate(kernel_id, USER), KeeperEndpoint)


async def test_with_etcd_away_and_a_silent_leader_clients_are_let_in(site: Site) -> None:
    """A machine that lost power refuses nothing, so there is no evidence; and without etcd no
    lease tells. Every proxy's 503 would leave a load balancer none to send a notebook to."""
    leader, passive = await two(site)
    kernel_id = await site.running(leader)
    assert passive.cluster.readiness()[0] is Readiness.NOT_READY
    for proxy in site.proxies:
        proxy.link.link = Link.REFUSED
    passive.moved.ahead += 10.0
    await eventually(lambda: passive.cluster.readiness()[0] is Readiness.DEGRADED)
    assert isinstance(await passive.cluster.locate(kernel_id, USER), KeeperEndpoint)
    passive.link.link = Link.UP
    await eventually(lambda: passive.cluster.readiness()[0] is Readiness.NOT_READY)


async def test_a_keeper_without_record_reaches_the_leader_through_a_passive_one(
    site: Site,
) -> None:
    leader, passive = await two(site)
    kernel_id = await site.running(leader)
    entry = leader.parts.cached(kernel_id)
    key, owner = site.keys.of(Kind.KERNEL, kernel_id), site.keys.of(Kind.OWNER, kernel_id)
    await leader.store.txn([ModEquals(key, entry.revision)], [Delete(key), Delete(owner)])
    await eventually(lambda: passive.parts.view.kernel(kernel_id) is None)
    launcher = site.launchers[0]
    beat = launcher.heartbeat()
    answer = await passive.cluster.heartbeat("launcher-1", JOIN, beat)
    await passive.cluster.heartbeat("launcher-1", answer["credential"], beat)
    await eventually(lambda: state_of(passive, kernel_id) == "running")
    assert leader.token(kernel_id) is not None


async def test_the_mode_changes_when_no_proxy_runs(site: Site) -> None:
    leader = await site.proxy("a")
    site.mode = Mode.ACTIVE_ACTIVE
    with pytest.raises(Conflict, match="stop them all first"):
        await site.proxy("b")
    await leader.cluster.drain()
    other = await site.proxy("c")
    assert other.cluster.readiness()[0] is Readiness.READY
    assert other.parts.authority.may_own


async def test_a_proxy_leaves_when_the_mode_changes_under_it(site: Site) -> None:
    leader = await site.proxy("a")
    found = await leader.store.get(site.keys.config)
    changed = ConfigRecord(mode=Mode.ACTIVE_ACTIVE.value, era=1).encode()
    await leader.store.txn(
        [ModEquals(site.keys.config, found.mod_revision)], [Put(site.keys.config, changed)]
    )
    await eventually(lambda: leader.parts.member.standing is Standing.REFUSED)
    assert leader.cluster.readiness()[0] is Readiness.NOT_READY


async def test_a_raised_era_is_adopted_and_kernels_are_claimed_in_it(site: Site) -> None:
    leader, _ = await two(site)
    kernel_id = await site.running(leader)
    found = await leader.store.get(site.keys.config)
    raised = ConfigRecord(mode=Mode.ACTIVE_PASSIVE.value, era=2).encode()
    await leader.store.txn(
        [ModEquals(site.keys.config, found.mod_revision)], [Put(site.keys.config, raised)]
    )
    await eventually(
        lambda: any(
            token is not None and token.era == 2
            for token in (proxy.token(kernel_id) for proxy in site.proxies)
        )
    )
