"""active-passive when etcd's answers come late, never, or from an older history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from holdfast_protocol.keys import Kind
from holdfast_protocol.records import OwnerRecord
from holdfast_proxy.cluster import Readiness
from holdfast_proxy.config import Mode
from holdfast_proxy.edge.drain import CLUSTER_SECONDS
from holdfast_proxy.store.contract import Delete, ModEquals, Op, Put
from holdfast_proxy.store.errors import Unreachable
from holdfast_proxy.store.memory import MemoryServer, MemoryStore
from support.ownership_site import Proxy, Site, eventually, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site(mode=Mode.ACTIVE_PASSIVE) as opened:
        yield opened


class LateStore(MemoryStore):
    """The first claim of the leader key is answered when ``meanwhile`` is done and seen."""

    def __init__(self, server: MemoryServer, meanwhile: Callable[[str], None]) -> None:
        super().__init__(server)
        self.meanwhile = meanwhile
        self.proxy: Proxy | None = None
        self.late = False

    async def txn(self, compares: Any, then: Any, *rest: Any, **more: Any) -> Any:
        result = await super().txn(compares, then, *rest, **more)
        if not self.late and result.succeeded and (key := _leader_put(then)) is not None:
            self.late = True
            self.meanwhile(key)
            assert self.proxy is not None
            view = self.proxy.parts.view
            await eventually(lambda: view.revision >= self.server.revision)
        return result


def _leader_put(then: list[Op]) -> str | None:
    keys = (op.key for op in then if isinstance(op, Put))
    return next((key for key in keys if key.endswith("/leader")), None)


def _leads_rightly(proxy: Proxy, site: Site) -> bool:
    """It leads by the key that the store has."""
    found = site.server.get(site.keys.leader)
    token = proxy.parts.authority._term.token
    return found is not None and token is not None and token.revision == found.mod_revision


@pytest.mark.parametrize("how", ["replaced", "gone"])
async def test_an_election_whose_answer_is_older_than_its_loss_is_none(
    site: Site, how: str
) -> None:
    """A proxy that was frozen just then reads the watch before the answer. Believing the answer
    it would lead for ever by a key that is not there: no start, no delete, and readyz says 200."""

    def meanwhile(key: str) -> None:
        seen = ModEquals(key, site.server.get(key).mod_revision)
        rival = OwnerRecord(proxy_id="b", claim_id="theirs").encode()
        site.server.txn([seen], [Put(key, rival)] if how == "replaced" else [Delete(key)], [])

    store = LateStore(site.server, meanwhile)
    proxy = await site.proxy("a", store=store, started=False)
    store.proxy = proxy
    await proxy.cluster.start()
    await eventually(lambda: store.late)
    await eventually(lambda: _leads_rightly(proxy, site))
    await site.launcher()
    assert await site.running(proxy)


async def test_a_leader_whose_etcd_was_restored_stands_again(site: Site) -> None:
    """The restored history ends before its election, so no later revision tells of the loss."""
    proxy = await site.proxy("a")
    await eventually(lambda: proxy.parts.authority.may_own)
    view, token = proxy.parts.view, proxy.parts.authority._term.token
    del site.server._kvs[site.keys.leader]
    view._begin_anew()
    view.remove(site.keys.leader, token.revision - 1)
    await eventually(lambda: _leads_rightly(proxy, site))
    assert proxy.cluster.readiness()[0] is Readiness.READY


class Forgetful(MemoryStore):
    """Does not do the first ``refusals`` deletions of owner keys."""

    refusals = 1

    async def txn(self, compares: Any, then: Any, *rest: Any, **more: Any) -> Any:
        if self.refusals and any(isinstance(op, Delete) and "/owners/" in op.key for op in then):
            self.refusals -= 1
            raise Unreachable("no answer")
        return await super().txn(compares, then, *rest, **more)


async def test_a_former_leader_gives_up_also_what_etcd_did_not_delete_at_first(site: Site) -> None:
    """Its lease stands, so its owner keys would: the new leader takes living keys from nobody."""
    store = Forgetful(site.server)
    leader = await site.proxy("a", store=store)
    await eventually(lambda: leader.parts.authority.may_own)
    successor = await site.proxy("b")
    await site.launcher()
    kernel_id = await site.running(leader)
    leader.parts.authority._resigned = True  # it does not stand again
    seen = leader.parts.view.leader
    key = site.keys.leader
    await successor.store.txn([ModEquals(key, seen.revision)], [Delete(key)])
    await eventually(lambda: successor.parts.ownership.effective(kernel_id))
    assert store.refusals == 0
    assert leader.parts.member.holds


class Slow(MemoryStore):
    """Owner keys are not deleted before ``until`` is set: etcd is slow, or they are many."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.until = asyncio.Event()

    async def txn(self, compares: Any, then: Any, *rest: Any, **more: Any) -> Any:
        if any(isinstance(op, Delete) and "/owners/" in op.key for op in then):
            await self.until.wait()
        return await super().txn(compares, then, *rest, **more)


async def test_a_drain_in_which_kernels_are_given_up_slowly_ends_the_lease(site: Site) -> None:
    """One call that gives up everything: without it the successor waits for the lease to expire."""
    leader = await site.proxy("a", store=Slow(site.server))
    await eventually(lambda: leader.parts.authority.may_own)
    await site.launcher()
    kernel_id = await site.running(leader)
    async with asyncio.timeout(CLUSTER_SECONDS):  # what a drain has for it
        await leader.cluster.drain()
    assert site.server.get(site.keys.leader) is None
    assert site.server.get(site.keys.of(Kind.OWNER, kernel_id)) is None
