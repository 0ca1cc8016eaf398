"""Sessions on a store: several proxies, lost answers, proxies that die half way."""

from __future__ import annotations

import asyncio
import uuid

import aiohttp
import pytest

from holdfast_protocol.keys import Kind
from holdfast_proxy.errors import NotFound, Unavailable
from holdfast_proxy.ownership.sessions.sweep import SessionSweep
from holdfast_proxy.sessions.desk import Changes, Desk, KernelWish, Opening
from holdfast_proxy.sessions.shelf import START_GRACE, Draft
from holdfast_proxy.store.memory import Link
from support.ownership_site import USER, Proxy, call, eventually, open_site

PATH = "a/b.ipynb"


def opening(path: str = PATH, **changes: object) -> Opening:
    fields = {"user": USER, "path": path, "name": "b", "kind": "notebook", **changes}
    return Opening(**fields)  # type: ignore[arg-type]  # a table of fields


def draft(path: str = PATH) -> Draft:
    kernel_id = str(uuid.uuid4())
    return Draft(user=USER, path=path, name="", kind="notebook", kernel_id=kernel_id)


def sweep(proxy: Proxy) -> SessionSweep:
    parts = proxy.parts
    return SessionSweep(
        shelf=proxy.cluster.sessions, view=parts.view, member=parts.member, clock=parts.clock
    )


async def test_a_session_outlives_the_proxy_that_opened_it() -> None:
    async with open_site() as site:
        one, two = await site.proxy("p1"), await site.proxy("p2")
        await site.launcher()
        opened = await Desk(one.cluster).open(opening())
        await one.kill()
        (found,) = await Desk(two.cluster).all(USER)
        assert (found.session.id, found.kernel.id) == (opened.session.id, opened.kernel.id)
        assert (await Desk(two.cluster).open(opening())).session.id == opened.session.id
        assert await Desk(two.cluster).all("someone else") == []


async def test_two_proxies_that_open_one_path_at_once_make_one_session() -> None:
    async with open_site() as site:
        desks = [Desk((await site.proxy(f"p{n}")).cluster) for n in range(3)]
        await site.launcher()
        opened = await asyncio.gather(*(desk.open(opening()) for desk in desks for _ in range(3)))
        assert len({item.session.id for item in opened}) == 1
        assert len({item.kernel.id for item in opened}) == 1
        assert len(await site.proxies[0].cluster.list_kernels(USER)) == 1


async def test_a_proxy_that_dies_between_session_and_kernel_leaves_no_second_kernel() -> None:
    async with open_site() as site:
        one, two = await site.proxy("p1"), await site.proxy("p2")
        await site.launcher()
        session, created = await one.cluster.sessions.create(draft())
        assert created
        await one.kill()
        assert await Desk(two.cluster).all(USER) == []
        with pytest.raises(NotFound):
            await Desk(two.cluster).get(session.id, USER)
        again = await Desk(two.cluster).open(opening())
        assert (again.session.id, again.kernel.id) == (session.id, session.kernel_id)


async def test_a_renamed_session_keeps_its_id_and_frees_its_path() -> None:
    async with open_site() as site:
        proxy = await site.proxy("p1")
        await site.launcher()
        desk = Desk(proxy.cluster)
        first = await desk.open(opening())
        renamed = await desk.change(first.session.id, USER, Changes(path="c.ipynb"), call())
        assert renamed.session.id == first.session.id
        second = await desk.open(opening())
        assert second.session.id != first.session.id
        assert {item.session.path for item in await desk.all(USER)} == {PATH, "c.ipynb"}


async def test_a_change_by_one_proxy_is_not_undone_by_another() -> None:
    """Each change is made to what was read, and read again when it was not."""
    async with open_site() as site:
        one, two = await site.proxy("p1"), await site.proxy("p2")
        await site.launcher()
        session = (await Desk(one.cluster).open(opening())).session
        await asyncio.gather(
            Desk(one.cluster).change(session.id, USER, Changes(path="new.ipynb"), call()),
            Desk(two.cluster).change(session.id, USER, Changes(name="new"), call()),
        )
        found = (await Desk(two.cluster).get(session.id, USER)).session
        assert (found.path, found.name) == ("new.ipynb", "new")
        assert await one.cluster.sessions.replace(session, draft()) is None


async def test_a_new_kernel_is_the_sessions_and_the_old_one_ends() -> None:
    async with open_site() as site:
        proxy = await site.proxy("p1")
        await site.launcher()
        desk = Desk(proxy.cluster)
        first = await desk.open(opening())
        wish = Changes(kernel=KernelWish(name="python3"))
        changed = await desk.change(first.session.id, USER, wish, call())
        (left,) = await proxy.cluster.list_kernels(USER)
        assert left.id == changed.kernel.id != first.kernel.id


async def test_without_etcd_sessions_are_listed_and_none_is_opened() -> None:
    async with open_site() as site:
        proxy = await site.proxy("p1")
        await site.launcher()
        desk = Desk(proxy.cluster)
        opened = await desk.open(opening())
        proxy.link.link = Link.REFUSED
        (found,) = await desk.all(USER)
        assert found.session.id == opened.session.id
        with pytest.raises(Unavailable):
            await desk.open(opening("other.ipynb"))
        with pytest.raises(Unavailable):
            await proxy.cluster.sessions.get(str(uuid.uuid4()), USER)


async def test_sessions_go_with_their_kernel() -> None:
    async with open_site() as site:
        proxy = await site.proxy("p1")
        await site.launcher()
        desk = Desk(proxy.cluster)
        opened = await desk.open(opening())
        await proxy.cluster.delete_kernel(opened.kernel.id, USER, call())
        assert await desk.all(USER) == []
        await sweep(proxy).look()
        assert await proxy.store.get(site.keys.of(Kind.SESSION, opened.session.id)) is None


async def test_a_session_without_a_kernel_is_kept_as_long_as_a_start_may_take() -> None:
    async with open_site() as site:
        proxy = await site.proxy("p1")
        await site.launcher()
        session, _ = await proxy.cluster.sessions.create(draft())
        await sweep(proxy).look()
        assert await proxy.cluster.sessions.all(USER) != []
        proxy.moved.ahead += START_GRACE + 1
        await sweep(proxy).look()
        await eventually(lambda: session.id not in proxy.parts.view.sessions)


async def test_over_http_at_either_proxy() -> None:
    async with open_site() as site:
        one, two = await site.proxy("p1"), await site.proxy("p2")
        await site.launcher()
        headers = {"Authorization": "token client-token"}
        urls = [f"http://127.0.0.1:{proxy.port}/api/sessions" for proxy in (one, two)]
        body = {"path": PATH, "type": "notebook", "name": "", "kernel": {"name": "python3"}}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.post(urls[0], json=body) as answer:
                model = await answer.json()
                assert answer.status == 201, model
            async with session.patch(f"{urls[1]}/{model['id']}", json={"name": "n"}) as answer:
                assert (await answer.json())["name"] == "n"
            async with session.delete(f"{urls[1]}/{model['id']}") as answer:
                assert answer.status == 204
            async with session.get(urls[0]) as answer:
                assert await answer.json() == []
