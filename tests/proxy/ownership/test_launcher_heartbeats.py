"""Heartbeats: joining, credentials, leases shared by proxies, kernelspecs, outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast_proxy.errors import BadRequest, NotFound, Unauthorized, Unavailable
from holdfast_proxy.store.memory import Link
from support.fake_launcher import FakeLauncher
from support.ownership_site import JOIN, USER, Site, eventually, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        await opened.proxy("a")
        yield opened


async def joined(site: Site) -> tuple[FakeLauncher, str]:
    launcher = FakeLauncher()
    site.launchers.append(launcher)
    await launcher.open()
    answer = await site.proxies[0].cluster.heartbeat("launcher-1", JOIN, launcher.heartbeat())
    return launcher, answer["credential"]


async def test_the_join_token_gives_a_credential_that_is_stored_as_a_hash(site: Site) -> None:
    a = site.proxies[0]
    launcher, credential = await joined(site)
    answer = await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    assert "credential" not in answer
    assert answer["ttl"] > 2
    assert answer["proxies"] == [{"id": "a", "url": a.config.url}]
    stored = b"".join(kv.value for kv in await a.store.range("/"))
    assert credential.encode() not in stored


async def test_a_wrong_credential_is_refused(site: Site) -> None:
    launcher, credential = await joined(site)
    a = site.proxies[0]
    for wrong in ("", "nonsense", credential + "x"):
        with pytest.raises(Unauthorized):
            await a.cluster.heartbeat("launcher-1", wrong, launcher.heartbeat())
    with pytest.raises(Unauthorized):  # another's name with one's own credential
        await a.cluster.heartbeat("launcher-2", credential, launcher.heartbeat())


async def test_joining_again_replaces_the_credential(site: Site) -> None:
    launcher, first = await joined(site)
    a = site.proxies[0]
    answer = await a.cluster.heartbeat("launcher-1", JOIN, launcher.heartbeat())
    assert answer["credential"] != first
    with pytest.raises(Unauthorized):
        await a.cluster.heartbeat("launcher-1", first, launcher.heartbeat())


async def test_any_proxy_renews_the_same_lease(site: Site) -> None:
    a = site.proxies[0]
    b = await site.proxy("b")
    launcher, credential = await joined(site)
    await eventually(lambda: "launcher-1" in b.parts.view.launchers)
    lease = a.parts.view.launchers["launcher-1"].lease
    await b.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    assert {p.parts.view.launchers["launcher-1"].lease for p in (a, b)} == {lease}


async def test_a_heartbeat_that_says_nothing_new_writes_nothing(site: Site) -> None:
    a = site.proxies[0]
    launcher, credential = await joined(site)
    await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    revision = site.server.revision if site.server else 0
    for _ in range(5):
        await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    assert site.server is not None
    assert site.server.revision == revision


async def test_an_expired_launcher_comes_back_with_its_next_heartbeat(site: Site) -> None:
    a = site.proxies[0]
    launcher, credential = await joined(site)
    assert site.server is not None
    site.server.revoke(a.parts.view.launchers["launcher-1"].lease)
    await eventually(lambda: "launcher-1" not in a.parts.view.launchers)
    await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    assert "launcher-1" in a.parts.view.launchers
    await site.running(a)


async def test_without_etcd_a_known_launcher_is_answered_and_an_unknown_one_waits(
    site: Site,
) -> None:
    a = site.proxies[0]
    launcher, credential = await joined(site)
    await eventually(lambda: "python3" in a.parts.kernelspecs.names("launcher-1"))
    kernel_id = await site.running(a)
    a.link.link = Link.REFUSED
    launcher.keepers[kernel_id].kernel.execution_state = "busy"
    answer = await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    assert answer["proxies"]
    [model] = await a.cluster.list_kernels(USER)
    assert model.execution_state == "busy"
    with pytest.raises(Unavailable):
        await a.cluster.heartbeat("launcher-2", "unknown", launcher.heartbeat())
    with pytest.raises(Unavailable):
        await a.cluster.heartbeat("launcher-2", JOIN, launcher.heartbeat())
    assert a.cluster.kernelspecs()["default"] == "python3"


async def test_activity_reaches_the_other_proxies(site: Site) -> None:
    a = site.proxies[0]
    b = await site.proxy("b")
    launcher, credential = await joined(site)
    await eventually(lambda: "python3" in a.parts.kernelspecs.names("launcher-1"))
    kernel_id = await site.running(a)
    launcher.keepers[kernel_id].kernel.execution_state = "busy"

    async def busy() -> bool:
        await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
        return [m.execution_state for m in await b.cluster.list_kernels(USER)] == ["busy"]

    await eventually(busy)


async def test_kernelspecs_are_fetched_when_their_digest_changes(site: Site) -> None:
    a = site.proxies[0]
    with pytest.raises(Unavailable):
        a.cluster.kernelspecs()
    launcher, credential = await joined(site)
    await eventually(lambda: launcher.count("specs") == 1)
    await eventually(lambda: "python3" in a.parts.kernelspecs.names("launcher-1"))
    await a.cluster.heartbeat("launcher-1", credential, launcher.heartbeat())
    launcher.specs = {"default": "ir", "kernelspecs": {"ir": {"name": "ir", "spec": {}}}}
    beat = launcher.heartbeat(kernelspecs_digest="digest-2")
    await a.cluster.heartbeat("launcher-1", credential, beat)
    await eventually(lambda: set(a.cluster.kernelspecs()["kernelspecs"]) == {"ir"})
    assert launcher.count("specs") == 2


async def test_resources_are_fetched_once_and_kept(site: Site) -> None:
    a = site.proxies[0]
    launcher, _ = await joined(site)
    await eventually(lambda: "python3" in a.parts.kernelspecs.names("launcher-1"))
    with pytest.raises(NotFound):
        await a.cluster.kernelspec_resource("python3", "../../etc/passwd")
    first = await a.cluster.kernelspec_resource("python3", "logo-64x64.png")
    await launcher.close()
    assert await a.cluster.kernelspec_resource("python3", "logo-64x64.png") == first
    assert first == (b"png", "image/png")
    with pytest.raises(NotFound):
        await a.cluster.kernelspec_resource("nosuch", "logo-64x64.png")


@pytest.mark.parametrize(
    "broken",
    [{"url": None}, {"kernels": {"k": {"alive": False}}}, {"capacity": 3}, {"boot_id": 7}],
)
async def test_a_heartbeat_that_is_none_is_refused_by_name(site: Site, broken: dict) -> None:
    launcher, credential = await joined(site)
    with pytest.raises(BadRequest, match=r"field"):
        await site.proxies[0].cluster.heartbeat(
            "launcher-1", credential, launcher.heartbeat(**broken)
        )


async def test_heartbeats_of_one_launcher_at_two_proxies_at_once(site: Site) -> None:
    a = site.proxies[0]
    b = await site.proxy("b")
    launcher, credential = await joined(site)
    beats = [launcher.heartbeat(labels={"n": number}) for number in range(6)]
    await asyncio.gather(
        *(
            proxy.cluster.heartbeat("launcher-1", credential, beat)
            for proxy, beat in zip([a, b] * 3, beats, strict=True)
        )
    )
    await eventually(lambda: "launcher-1" in b.parts.view.launchers)
    await site.running(b)
