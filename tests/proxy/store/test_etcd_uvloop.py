"""The proxy runs on uvloop, so the store must too, reconnects included."""

from __future__ import annotations

import asyncio

import uvloop

from holdfast_proxy.store.contract import ModEquals, Put
from holdfast_proxy.store.etcd import EtcdConfig, EtcdStore
from support.etcd_server import EtcdCluster


def test_the_store_works_on_uvloop(single: EtcdCluster, prefix: str) -> None:
    async def main() -> list[str]:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        async with EtcdStore(EtcdConfig(endpoints=single.endpoints, timeout=20)) as store:
            start = (await store.range(prefix)).revision + 1
            async with store.watch(prefix, start_revision=start) as watch, asyncio.timeout(30):
                lease = await store.lease_grant(10)
                await store.txn([ModEquals(prefix + "a", 0)], [Put(prefix + "a", b"", lease)])
                keys = [event.key for event in (await anext(watch)).events]
                single.members[0].kill()
                single.members[0].start()
                await store.txn([ModEquals(prefix + "b", 0)], [Put(prefix + "b", b"")])
                keys += [event.key for event in (await anext(watch)).events]
                assert await store.lease_keepalive(lease) == 10
                return keys

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [prefix + "a", prefix + "b"]
