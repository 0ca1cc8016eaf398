"""One chaos run, from an empty directory to a whole history; the verdict is the checker's.

It runs in a network namespace of its own (`__main__` sees to that). Phases: the cluster comes
up; clients work while faults happen; all faults are over and clients go on for a little; clients
stop and everything is counted; every kernel is deleted and everything is counted again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp

from support.chaos import census
from support.chaos.archive import HISTORY, SIDE
from support.chaos.clients.notebook import PATIENCE, Notebook
from support.chaos.clients.plain import PlainClient
from support.chaos.clients.prober import probe_lists
from support.chaos.clients.rest import call
from support.chaos.history import Began, Ended, Listed, Recorder, Settled
from support.chaos.injector import Injector
from support.chaos.inside.trace import Plant
from support.chaos.network import Network
from support.chaos.options import Options
from support.chaos.schedule import Fault
from support.chaos.site import LAUNCHERS, PROXIES, Site
from support.chaos.stale import call_with_stale_token
from support.cluster import JupyterServer

#: How long everything may take to be as it should after the last fault, and after the work.
_RECOVERY, _QUIET = 60.0, 60.0
#: What is worked without a fault before the end.
_CALM = 5.0
_SAMPLE_PAUSE = 2.0


class Run:
    """``await run()`` once; ``failed`` then says which faults could not be made."""

    def __init__(self, options: Options, faults: list[Fault], directory: Path) -> None:
        self._options = options
        self._faults = faults
        self._directory = directory
        self._side = directory / SIDE
        self._stop = asyncio.Event()
        self._notebooks: list[tuple[JupyterServer, Notebook]] = []
        self._plain: list[PlainClient] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: list[str] = []

    def __repr__(self) -> str:
        return f"<Run seed={self._options.seed} in {self._directory}>"

    async def run(self) -> None:
        """Everything of it is ended, whatever happens."""
        network = Network()
        network.open()
        self._recorder = Recorder(self._directory / HISTORY)
        self._site = Site(self._directory, network, plant=self._options.plant)
        try:
            await self._site.open_lines()
            await asyncio.to_thread(self._site.start)
            await self._work()
            self._recorder.write(Ended(at=self._recorder.now()))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.to_thread(self._site.stop)
            await self._site.close_lines()
            network.close()
            self._recorder.close()

    async def _work(self) -> None:
        site, recorder, options = self._site, self._recorder, self._options
        await self._until(self._nodes_known, _RECOVERY, "both launchers take kernels")
        census.sample(site, recorder, "before")
        servers = [
            await asyncio.to_thread(site.jupyter, f"jupyter-{n}", gateway=site.proxy_urls[n % 3])
            for n in range(options.servers)
        ]
        recorder.write(Began(at=recorder.now(), seed=options.seed, seconds=options.seconds))
        self._begin(servers)
        injector = Injector(site, recorder, carried=self._carried, kernels=self._kernels)
        if options.plant is Plant.STALE_TOKEN:
            print(f"planted: a stale call, answered {await call_with_stale_token(site)}")
        await injector.run(self._faults)
        self.failed = injector.failed
        await self._settle()
        await asyncio.sleep(_CALM)
        self._stop.set()
        workers = self._tasks[1:]
        done, late = await asyncio.wait(workers, timeout=2 * PATIENCE)
        for task in done:
            task.result()
        assert not late, f"clients do not end: {late}"
        await self._count("quiet", self._is_consistent)
        await self._empty()
        await self._count("emptied", self._is_empty)
        census.sample(site, recorder, "after")

    def _begin(self, servers: list[JupyterServer]) -> None:
        options, site, recorder = self._options, self._site, self._recorder
        for n, server in enumerate(servers):
            for m in range(options.notebooks):
                book = Notebook(
                    recorder,
                    server.url,
                    server.token,
                    self._side,
                    name=f"notebook {n}.{m}",
                    seed=options.seed,
                    stop=self._stop,
                )
                self._notebooks.append((server, book))
        for n in range(options.plain):
            self._plain.append(
                PlainClient(
                    recorder,
                    site.proxy_urls,
                    site.token,
                    self._side,
                    name=f"plain {n}",
                    seed=options.seed,
                    stop=self._stop,
                )
            )
        self._tasks.append(asyncio.create_task(self._sample()))
        self._tasks += [asyncio.create_task(book.run()) for _, book in self._notebooks]
        self._tasks += [asyncio.create_task(client.run()) for client in self._plain]
        probing = probe_lists(recorder, site.proxy_urls, site.token, self._stop)
        self._tasks.append(asyncio.create_task(probing))

    async def _sample(self) -> None:
        while True:
            await asyncio.to_thread(census.sample, self._site, self._recorder, "during")
            await asyncio.sleep(_SAMPLE_PAUSE)

    async def _settle(self) -> None:
        """After the last fault everything that serves must serve."""
        for n in range(PROXIES):
            await asyncio.to_thread(self._site.wait_proxy, n, kernelspecs=True)
        await self._until(self._nodes_known, _RECOVERY, "both launchers are known again")
        self._recorder.write(Settled(at=self._recorder.now()))

    # -- questions ----------------------------------------------------------------------------

    async def _carried(self, proxy: int) -> tuple[str, ...]:
        """Sessions whose stream goes through this proxy now."""
        found = [
            client.book.session
            for client in self._plain
            if client.carrier == proxy and client.book is not None
        ]
        url = self._site.proxy_urls[proxy]
        servers = {server.url: server.token for server, _ in self._notebooks}
        for server, token in servers.items():
            body = await self._get(f"{server}/api/holdfast/streams", token, seconds=1.0)
            streams = body["streams"] if isinstance(body, dict) else []
            found += [each["session_id"] for each in streams if each["gateway"] == url]
        return tuple(found)

    def _kernels(self) -> list[str]:
        clients = [book for _, book in self._notebooks] + list(self._plain)
        return [client.book.kernel for client in clients if client.book is not None]

    async def _nodes_known(self) -> bool:
        body = await self._get(f"{self._site.proxy_urls[0]}/holdfast/v1/cluster", self._site.token)
        alive = [each for each in (body or {}).get("launchers", ()) if each["alive"]]
        return len(alive) == LAUNCHERS

    async def _is_consistent(self) -> bool:
        """Each list the same, one keeper and one kernel for each entry, nothing else."""
        lists = await self._lists()
        found = census.count(self._site, "quiet", 0.0)
        keepers = sorted(each.kernel for each in found if each.role == "keeper")
        kernels = sorted(each.kernel for each in found if each.role == "kernel")
        strays = [each for each in found if each.role == "stray"]
        first = sorted(lists[0] or ())
        return (
            not strays
            and first == keepers == kernels
            and all(ids is not None and sorted(ids) == first for ids in lists)
        )

    async def _is_empty(self) -> bool:
        found = census.count(self._site, "emptied", 0.0)
        return not found and all(ids == () for ids in await self._lists())

    async def _lists(self) -> list[tuple[str, ...] | None]:
        lists: list[tuple[str, ...] | None] = []
        for url in self._site.proxy_urls:
            body = await self._get(f"{url}/api/kernels", self._site.token)
            lists.append(tuple(each["id"] for each in body) if isinstance(body, list) else None)
        return lists

    @staticmethod
    async def _get(url: str, token: str, *, seconds: float = 10.0) -> object:
        """The body of a GET; None without one."""
        limits = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as http,
                http.get(url, timeout=limits) as response,
            ):
                return json.loads(await response.text()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    # -- the end ------------------------------------------------------------------------------

    async def _count(self, phase: str, expected: Callable[[], Awaitable[bool]]) -> None:
        """Wait, within bounds, until it is as it should; then note how it is."""
        with suppress(TimeoutError):  # the checker says what is wrong
            await self._until(expected, _QUIET, phase)
        now = self._recorder.now()
        for n, ids in enumerate(await self._lists()):
            self._recorder.write(Listed(at=now, proxy=n, kernels=ids or (), phase=phase))
        for found in census.count(self._site, phase, now):
            self._recorder.write(found)

    async def _empty(self) -> None:
        """Delete every kernel; a proxy that says "not now" is asked again, as it asks for."""
        token, urls = self._site.token, self._site.proxy_urls
        left = {kernel for ids in await self._lists() for kernel in ids or ()}
        deadline = time.monotonic() + _QUIET
        async with aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as http:
            tries = 0
            while left and time.monotonic() < deadline:
                url = urls[tries % len(urls)]
                tries += 1
                for kernel in sorted(left):
                    answer = await call(
                        self._recorder, http, url, "delete", client="sweeper", kernel=kernel
                    )
                    if answer.status in (204, 404):
                        left.discard(kernel)
                await asyncio.sleep(0.5 if left else 0)

    @staticmethod
    async def _until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds} s")
            await asyncio.sleep(0.2)
