"""Starting kernels: the five steps, a crash after each, and retries that follow the record."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from holdfast_proxy.cluster import KeeperEndpoint, Waiting
from holdfast_proxy.errors import BadRequest, Conflict, NotFound, StartFailed, Unavailable
from holdfast_proxy.ownership.calls.endpoints import check_endpoint
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherError
from holdfast_proxy.store.memory import Link
from support.fake_launcher import Drop
from support.ownership_site import (
    JOIN,
    USER,
    Site,
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


async def test_a_started_kernel_runs_and_is_located(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    model = await proxy.cluster.start_kernel(request(kernel_id, spec_name=None))
    assert (model.id, model.name) == (kernel_id, "python3")
    found = await proxy.cluster.locate(kernel_id, USER)
    keeper = launcher.keepers[kernel_id]
    assert isinstance(found, KeeperEndpoint)
    assert (found.port, found.credential) == (keeper.port, keeper.credential)
    assert (await proxy.cluster.get_kernel(kernel_id, USER)).execution_state == "idle"
    assert [item.id for item in await proxy.cluster.list_kernels(USER)] == [kernel_id]


async def test_no_secret_stands_in_clear_in_the_store(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    await proxy.cluster.start_kernel(request(kernel_id, env={"KERNEL_SECRET": "hunter2"}))
    stored = b"".join(kv.value for kv in await proxy.store.range("/"))
    secrets = ["hunter2", launcher.credential, launcher.keepers[kernel_id].credential, JOIN]
    assert [secret for secret in secrets if secret.encode() in stored] == []


async def test_the_keeper_is_in_the_record_before_its_kernel_starts(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    seen: list[bool] = []

    async def look(call: str) -> None:
        if call.startswith("PUT"):
            return
        seen.append(proxy.parts.cached(kernel_id).record.endpoint is not None)

    async def watch_keeper(call: str) -> None:
        if call.startswith("PUT"):
            launcher.keepers[kernel_id].before = look

    launcher.after = watch_keeper
    await proxy.cluster.start_kernel(request(kernel_id))
    assert seen == [True]


async def test_a_kernel_that_is_starting_says_what_it_waits_for(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    seen: list[tuple[str, str | None]] = []

    async def look(call: str) -> None:
        if call.startswith("PUT"):
            model = await proxy.cluster.get_kernel(kernel_id, USER)
            seen.append((model.execution_state, model.reason))

    launcher.after = look
    started = await proxy.cluster.start_kernel(request(kernel_id))
    assert seen == [("starting", "the kernel is being started by launcher 'launcher-1'")]
    assert started.reason is None


async def test_the_same_id_by_the_same_user_starts_once(site: Site) -> None:
    a, b = await site.proxy("a"), await site.proxy("b")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    models = await asyncio.gather(
        *(proxy.cluster.start_kernel(request(kernel_id)) for proxy in (a, b, a, b))
    )
    assert {model.id for model in models} == {kernel_id}
    assert launcher.count("launch") == 1
    assert launcher.keepers[kernel_id].count("start") == 1


async def test_another_users_id_is_refused_without_a_word_about_it(site: Site) -> None:
    proxy = await site.proxy("a")
    await site.launcher()
    kernel_id = await site.running(proxy)
    with pytest.raises(Conflict) as taken:
        await proxy.cluster.start_kernel(request(kernel_id, user="eve"))
    assert USER not in taken.value.message
    with pytest.raises(NotFound):
        await proxy.cluster.get_kernel(kernel_id, "eve")
    with pytest.raises(NotFound):
        await proxy.cluster.locate(kernel_id, "eve")
    assert await proxy.cluster.list_kernels("eve") == []


async def test_another_request_with_a_used_id_is_a_conflict(site: Site) -> None:
    proxy = await site.proxy("a")
    await site.launcher()
    kernel_id = await site.running(proxy)
    with pytest.raises(Conflict):
        await proxy.cluster.start_kernel(request(kernel_id, path="/elsewhere"))


async def test_an_unknown_kernelspec_is_the_clients_fault(site: Site) -> None:
    proxy = await site.proxy("a")
    await site.launcher()
    with pytest.raises(BadRequest):
        await proxy.cluster.start_kernel(request(str(uuid.uuid4()), spec_name="cobol"))


async def test_without_a_launcher_a_start_is_unavailable(site: Site) -> None:
    proxy = await site.proxy("a")
    with pytest.raises(Unavailable):
        await proxy.cluster.start_kernel(request(str(uuid.uuid4())))


async def test_a_full_launcher_gets_no_more(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    beat = launcher.heartbeat(capacity={"kernels": 1})
    await proxy.cluster.heartbeat(launcher.launcher_id, JOIN, beat)
    await site.running(proxy)
    with pytest.raises(Unavailable):
        await proxy.cluster.start_kernel(request(str(uuid.uuid4())))


async def test_a_kernel_that_does_not_come_up_says_its_last_words(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())

    async def break_keeper(call: str) -> None:
        if call.startswith("PUT"):
            launcher.keepers[kernel_id].start_error = "ModuleNotFoundError: ipykernel"

    launcher.after = break_keeper
    for _ in range(2):  # a retry follows the record
        with pytest.raises(StartFailed, match="ModuleNotFoundError"):
            await proxy.cluster.start_kernel(request(kernel_id))
    assert await proxy.cluster.list_kernels(USER) == []
    assert launcher.count("launch") == 1


async def test_a_launcher_that_refuses_fails_the_start(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    launcher.start_error = "no disk"
    with pytest.raises(StartFailed, match="no disk"):
        await proxy.cluster.start_kernel(request(str(uuid.uuid4())))


async def test_a_launcher_that_is_down_is_left_for_another(site: Site) -> None:
    proxy = await site.proxy("a")
    first, second = await site.launcher("l1"), await site.launcher("l2")
    await first.close()
    kernel_id = await site.running(proxy)
    assert kernel_id in second.keepers
    assert proxy.parts.cached(kernel_id).record.launcher_id == "l2"


@pytest.mark.parametrize("step", ["before PUT", "after PUT", "before start", "after start"])
async def test_another_proxy_finishes_a_start_that_broke(site: Site, step: str) -> None:
    """The first owner dies at each point; its kernel starts once, by the other."""
    a, b = await site.proxy("a"), await site.proxy("b")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    reached = asyncio.Event()
    dying = True

    async def hang() -> None:
        if dying:
            reached.set()
            await asyncio.sleep(30)

    def at(moment: str, word: str) -> object:
        async def hook(call: str) -> None:
            if moment == "after" and call.startswith("PUT") and "start" in step:
                keeper = launcher.keepers[kernel_id]
                keeper.before = at("before", "start")  # type: ignore[assignment]
                keeper.after = at("after", "start")  # type: ignore[assignment]
            if step == f"{moment} {word}" and word.lower() in call.lower():
                await hang()

        return hook

    launcher.before = at("before", "PUT")  # type: ignore[assignment]
    launcher.after = at("after", "PUT")  # type: ignore[assignment]
    starting = asyncio.create_task(a.cluster.start_kernel(request(kernel_id)))
    await asyncio.wait_for(reached.wait(), 10)
    dying = False
    assert isinstance(await b.cluster.locate(kernel_id, USER), Waiting)
    lease = a.parts.member._lease.lease_id
    await a.kill()
    starting.cancel()
    assert site.server is not None
    site.server.revoke(lease)
    model = await asyncio.wait_for(b.cluster.start_kernel(request(kernel_id)), 15)
    assert model.id == kernel_id
    assert launcher.count("launch") == 1
    assert launcher.keepers[kernel_id].count("start") == 1
    assert launcher.keepers[kernel_id].fenced.fence == b.token(kernel_id)


async def test_a_start_goes_on_when_its_client_hangs_up(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    reached, go = asyncio.Event(), asyncio.Event()

    async def hold(call: str) -> None:
        if call.startswith("PUT"):
            reached.set()
            await go.wait()

    launcher.before = hold
    starting = asyncio.create_task(proxy.cluster.start_kernel(request(kernel_id)))
    await asyncio.wait_for(reached.wait(), 10)
    starting.cancel()
    go.set()
    await eventually(lambda: runs(proxy, kernel_id))


@pytest.mark.parametrize("link", [Link.ANSWER_LOST, Link.REQUEST_LOST])
async def test_a_first_transaction_of_unknown_outcome_is_settled_by_reading(
    site: Site, link: Link
) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    kernel_id = str(uuid.uuid4())
    proxy.link.next_links.append(link)
    await proxy.cluster.start_kernel(request(kernel_id))
    assert runs(proxy, kernel_id)
    assert launcher.count("launch") == 1


async def test_a_launchers_answer_that_is_lost_is_asked_for_again(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    drops = [True, True]

    async def lose(call: str) -> None:
        if call.startswith("PUT") and drops:
            drops.pop()
            raise Drop

    launcher.after = lose
    kernel_id = await site.running(proxy)
    assert launcher.count("put") == 3
    assert launcher.count("launch") == 1
    assert state_of(proxy, kernel_id) == "running"


async def test_a_keeper_on_loopback_is_not_believed_of_a_far_launcher(site: Site) -> None:
    proxy = await site.proxy("a")
    launcher = await site.launcher()
    record = proxy.parts.launchers.record(launcher.launcher_id)
    assert record is not None
    handle = Handle(alive=True, nonce="n", host="127.0.0.1", port=1, credential="c", epoch="e")
    check_endpoint(record.url, handle)
    for url, host in [
        ("https://node7:99", "127.0.0.1"),
        ("https://node7:99", "0.0.0.0"),  # noqa: S104 (that no keeper is there is the point)
        ("https://node7:99", "169.254.169.254"),
        ("https://node7:99", "10.0.0.7"),  # no fingerprint off loopback
    ]:
        with pytest.raises(LauncherError):
            check_endpoint(
                url,
                Handle(alive=True, nonce="n", host=host, port=1, credential="c", epoch="e"),
            )
