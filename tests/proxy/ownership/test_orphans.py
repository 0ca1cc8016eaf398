"""Keepers without a record: restored, or ended when a tombstone names them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast_proxy.cluster import KeeperEndpoint
from holdfast_proxy.errors import NotFound
from holdfast_proxy.store.contract import Delete, ModEquals
from support.fake_launcher import FakeKeeper
from support.ownership_site import JOIN, USER, Site, call, eventually, open_site, runs, state_of


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        await opened.proxy("a")
        await opened.launcher()
        yield opened


async def forget(site: Site, kernel_id: str) -> None:
    """The store loses the record, as after a restore from an older backup."""
    a = site.proxies[0]
    key = a.parts.writer.key(kernel_id)
    found = await a.store.get(key)
    assert found is not None
    result = await a.store.txn(
        [ModEquals(key, found.mod_revision)],
        [Delete(key), Delete(key.replace("/kernels/", "/owners/"))],
    )
    assert result.succeeded
    await eventually(lambda: state_of(a, kernel_id) is None)


async def beat(site: Site) -> None:
    launcher = site.launchers[0]
    await site.proxies[0].cluster.heartbeat(launcher.launcher_id, JOIN, launcher.heartbeat())


async def test_a_living_kernel_without_record_gets_it_back(site: Site) -> None:
    a = site.proxies[0]
    kernel_id = await site.running(a)
    old = a.token(kernel_id)
    await forget(site, kernel_id)
    await beat(site)
    await eventually(lambda: runs(a, kernel_id))
    found = await a.cluster.locate(kernel_id, USER)
    assert isinstance(found, KeeperEndpoint)
    assert found.port == site.keeper(kernel_id).port
    assert a.token(kernel_id) > old
    await a.cluster.restart_kernel(kernel_id, USER, call())
    with pytest.raises(NotFound):
        await a.cluster.get_kernel(kernel_id, "eve")


async def test_a_keeper_that_a_tombstone_names_is_ended(site: Site) -> None:
    a, launcher = site.proxies[0], site.launchers[0]
    kernel_id = await site.running(a)
    keeper = site.keeper(kernel_id)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    risen = FakeKeeper(kernel_id, keeper.nonce, "python3", USER)
    await risen.open()
    launcher.keepers[kernel_id] = risen
    launcher.gone.clear()  # it had believed the keeper gone
    await beat(site)
    await eventually(lambda: kernel_id not in launcher.keepers)
    await eventually(lambda: a.parts.view.owner(kernel_id) is None)
    assert state_of(a, kernel_id) == "tombstone"


async def test_a_tombstone_of_another_start_ends_nothing(site: Site) -> None:
    a, launcher = site.proxies[0], site.launchers[0]
    kernel_id = await site.running(a)
    await a.cluster.delete_kernel(kernel_id, USER, call())
    other = FakeKeeper(kernel_id, "another nonce", "python3", USER)
    await other.open()
    launcher.keepers[kernel_id] = other
    await a.cluster._orphans.look(launcher.launcher_id, kernel_id, "another nonce")
    assert kernel_id in launcher.keepers
