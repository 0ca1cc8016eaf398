"""The same on a real etcd: start, takeover by expiry, an outage, a restarted process, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast_proxy.cluster import KeeperEndpoint, Readiness
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from support.etcd_server import EtcdCluster
from support.ownership_site import USER, Site, call, closing_site, eventually, request, state_of


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    directory: Path = tmp_path_factory.mktemp("etcd")
    with EtcdCluster(directory) as running:
        running.wait_ready()
        yield running


@pytest.fixture
async def site(etcd: EtcdCluster) -> AsyncIterator[Site]:
    def store() -> EtcdStore:
        return EtcdStore(EtcdConfig(endpoints=etcd.endpoints))

    async with closing_site(Site(new_store=store, lease_ttl=3.0)) as opened:
        yield opened


async def test_start_forward_restart_delete(site: Site) -> None:
    a, b = await site.proxy("a"), await site.proxy("b")
    await site.launcher()
    kernel_id = await site.running(a)
    assert isinstance(await b.cluster.locate(kernel_id, USER), KeeperEndpoint)
    await b.cluster.restart_kernel(kernel_id, USER, call(request_id="r"))
    assert site.keeper(kernel_id).kernel.incarnation == 2
    assert [m.id for m in await b.cluster.list_kernels(USER)] == [kernel_id]
    await b.cluster.delete_kernel(kernel_id, USER, call())
    await eventually(lambda: state_of(b, kernel_id) == "tombstone")


async def test_a_killed_owners_kernel_moves_when_its_lease_ends(site: Site) -> None:
    a, b = await site.proxy("a"), await site.proxy("b")
    await site.launcher()
    kernel_id = await site.running(a)
    old = a.token(kernel_id)
    await a.kill()
    await eventually(lambda: b.parts.ownership.effective(kernel_id), within=15)
    assert site.keeper(kernel_id).fenced.fence == b.token(kernel_id) > old
    await b.cluster.restart_kernel(kernel_id, USER, call())


async def test_an_outage_of_etcd_ends_nothing_and_is_got_over(
    site: Site, etcd: EtcdCluster
) -> None:
    a, b = await site.proxy("a"), await site.proxy("b")
    await site.launcher()
    kernel_id = await site.running(a)
    [member] = etcd.members
    member.kill()
    try:
        await eventually(lambda: a.cluster.readiness()[0] is Readiness.DEGRADED, within=15)
        await eventually(lambda: b.cluster.readiness()[0] is Readiness.DEGRADED, within=15)
        assert isinstance(await b.cluster.locate(kernel_id, USER), KeeperEndpoint)
        await b.cluster.interrupt_kernel(kernel_id, USER, call())
        await b.cluster.restart_kernel(kernel_id, USER, call(request_id="away"))
        assert site.keeper(kernel_id).count("restart") == 1
        with pytest.raises(Unavailable):
            await a.cluster.delete_kernel(kernel_id, USER, call())
        async with asyncio.timeout(10):
            assert [m.id for m in await a.cluster.list_kernels(USER)] == [kernel_id]
    finally:
        member.start()
    for proxy in (a, b):
        await eventually(lambda p=proxy: p.cluster.readiness()[0] is Readiness.READY, within=20)
    await eventually(
        lambda: (a.token(kernel_id) is None) != (b.token(kernel_id) is None), within=15
    )
    await eventually(lambda: not a.parts.member.held_up)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    assert state_of(a, kernel_id) == "tombstone"


async def test_a_restarted_process_reclaims_and_a_drained_one_lets_go(site: Site) -> None:
    a = await site.proxy("a")
    await site.launcher()
    kernel_id = await site.running(a)
    await a.kill()
    again = await asyncio.wait_for(site.proxy("a", port=a.port), 3)
    await eventually(lambda: again.parts.ownership.effective(kernel_id))
    b = await site.proxy("b")
    await again.cluster.drain()
    await eventually(lambda: b.token(kernel_id) is not None)
    assert site.keeper(kernel_id).count("shutdown") == 0


async def test_two_proxies_that_start_one_id_start_one_kernel(site: Site) -> None:
    a, b = await site.proxy("a"), await site.proxy("b")
    launcher = await site.launcher()
    kernel_id = "5b6f1d6e-0000-4000-8000-000000000000"
    await asyncio.gather(*(p.cluster.start_kernel(request(kernel_id)) for p in (a, b, b, a)))
    assert launcher.count("launch") == 1
