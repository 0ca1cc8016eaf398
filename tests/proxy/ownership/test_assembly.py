"""What a configuration must say before a proxy may take part."""

from __future__ import annotations

import time

import msgspec
import pytest

from holdfast_proxy.config import ConfigError, ProxyConfig, Secret
from holdfast_proxy.ownership.assembly import assemble
from holdfast_proxy.store.memory import MemoryStore
from support.ownership_site import USER, open_site

GOOD = ProxyConfig(proxy_id="a", cluster_key=Secret("key"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"cluster_key": None}, "cluster_key_file")],
)
async def test_what_cannot_work_is_refused_with_what_to_do(
    changes: dict[str, object], said: str
) -> None:
    config = msgspec.structs.replace(GOOD, **changes)
    with pytest.raises(ConfigError, match=said):
        assemble(config, proxy_url="http://x", store=MemoryStore())


async def test_locate_from_the_view_costs_no_call_and_little_time() -> None:
    async with open_site() as site:
        proxy = await site.proxy("a")
        launcher = await site.launcher()
        kernel_id = await site.running(proxy)
        calls = len(launcher.calls) + len(site.keeper(kernel_id).calls)
        began = time.perf_counter()
        for _ in range(200):
            await proxy.cluster.locate(kernel_id, USER)
        assert (time.perf_counter() - began) / 200 < 0.001
        assert len(launcher.calls) + len(site.keeper(kernel_id).calls) == calls
