"""One run of `holdfast demo`: start a site, run the notebook, kill, count, end everything.

What stays is the executed notebook; the rest of the folder goes, unless the person wants to look
or something went wrong. The first signal ends the run in order and still gives the verdict.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from rich.console import Console

from ..up.child import ChildEvent, Phase, StartFailed
from ..up.etcd_binary import EtcdBinary, find
from ..up.progress import Progress
from ..up.session import Signals, unless
from ..up.spawning import become_subreaper, last_lines
from ..up.state_dir import StateDir
from .browser import Browser, BrowserError
from .display import Column, MemberView, Scene, Screen
from .execution import Execution
from .kernel_gateway import KernelGatewaySite
from .killer import Killer
from .notebook import Role, build_cells
from .schedule import kill_times
from .site import SERVER, HoldfastSite, Roster, Site

_NOTEBOOK, _SIDE_FILE = "holdfast-demo.ipynb", "runs.txt"
#: What people call a child that `holdfast up` calls otherwise.
_SHOWN = {SERVER: "jupyter-server"}
#: Seconds for the last save, and between two looks at who carries, for the picture.
_SAVE, _GLANCE = 10.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The command line. Times are seconds."""

    seconds: float = 60.0
    proxies: int = 2
    every: float = 5.0
    seed: int | None = None
    how: signal.Signals = signal.SIGKILL
    keep: bool = False
    against_kernel_gateway: bool = False


@dataclass(slots=True)
class Result:
    """What is to be told at the end. ``folder``: where logs stayed, None when they did not;
    ``peer_trouble``: why the other gateway has no column though it was asked for."""

    columns: list[Column] = field(default_factory=list)
    notebooks: list[Path] = field(default_factory=list)
    folder: Path | None = None
    interrupted: bool = False
    peer_trouble: str = ""


class CannotStart(Exception):
    """The processes or the notebook did not come up; the message says why."""


async def run(options: DemoOptions, console: Console) -> Result:
    """Everything. Raises CannotStart, NoEtcd or OSError; no process is left in any case."""
    signals = Signals()
    signals.listen()
    become_subreaper()
    etcd = find(os.environ)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    result = Result(folder=folder)
    well = False
    try:
        await _Run(options, console, signals, folder / "holdfast", result).holdfast(etcd)
        if options.against_kernel_gateway and not signals.first.is_set():
            peer = _Run(options, console, signals, folder / "kernel-gateway", result)
            try:
                await peer.kernel_gateway()
            except CannotStart as trouble:
                result.peer_trouble = str(trouble)
        well = all(column.verdict.ok for column in result.columns[:1]) and not result.peer_trouble
    finally:
        result.interrupted = signals.first.is_set()
        if well and not options.keep:
            _tidy(folder)
            result.folder = None
    return result


def _tidy(folder: Path) -> None:
    """Remove what the processes kept, secrets among it; leave the notebooks."""
    for part in folder.iterdir():
        shutil.rmtree(part / "state", ignore_errors=True)
        shutil.rmtree(part / "notebooks" / ".ipynb_checkpoints", ignore_errors=True)
        if not any((part / "notebooks").glob("*.ipynb")):
            shutil.rmtree(part, ignore_errors=True)
    if not any(folder.iterdir()):
        folder.rmdir()


class _Run:
    """One site and its notebook, below ``base``."""

    def __init__(
        self, options: DemoOptions, console: Console, signals: Signals, base: Path, result: Result
    ) -> None:
        self._options, self._console, self._signals = options, console, signals
        self._base, self._result = base, result
        self._root = base / "notebooks"
        self._root.mkdir(parents=True)
        self._progress = Progress(console)
        self._screen = Screen(console, self._scene)
        self._roster = Roster(self._event)
        self._running = False
        self._carriers: frozenset[str] = frozenset()
        self._site: Site
        self._execution: Execution
        self._killer: Killer

    def __repr__(self) -> str:
        return f"<_Run {self._base}>"

    async def holdfast(self, etcd: EtcdBinary) -> None:
        with StateDir(self._base / "state") as state:
            async with aiohttp.ClientSession() as http:
                self._site = HoldfastSite(
                    proxies=self._options.proxies,
                    state=state,
                    root=self._root,
                    etcd=etcd,
                    roster=self._roster,
                    http=http,
                )
                if etcd.caution:
                    self._screen.say(etcd.caution)
                await self._supervised(http)

    async def kernel_gateway(self) -> None:
        with StateDir(self._base / "state") as state:
            async with aiohttp.ClientSession() as http:
                self._site = KernelGatewaySite(
                    state=state, root=self._root, roster=self._roster, http=http
                )
                await self._supervised(http)

    async def _supervised(self, http: aiohttp.ClientSession) -> None:
        """Start, show, end; whatever happens, nothing of the site runs afterwards."""
        self._prepare(http)
        first = self._signals.first
        try:
            with self._progress:
                started = await unless(first, self._started())
            if started:
                for line in self._plan_in_words():
                    self._screen.say(line)
                await self._shown()
        except StartFailed as failure:
            log = self._site.log_file(failure.name)
            raise CannotStart(f"{failure}; the end of {log}:\n{last_lines(log)}") from failure
        finally:
            self._running = False
            await self._execution.close()
            self._progress.stopping("ending all processes")
            if not await unless(self._signals.second, self._site.stop()):
                await self._site.kill()

    def _prepare(self, http: aiohttp.ClientSession) -> None:
        options, site = self._options, self._site
        side_file = self._root / _SIDE_FILE
        self._execution = Execution(
            build_cells(seconds=options.seconds, side_file=side_file),
            browser=Browser(http, site.server_url, site.server_token),
            path=_NOTEBOOK,
            side_file=side_file,
            clock=time.monotonic,
            say=self._screen.say,
            note=self._screen.note,
        )
        self._killer = Killer(
            site,
            self._execution,
            times=kill_times(seconds=options.seconds, every=options.every, seed=options.seed),
            seconds=options.seconds,
            how=options.how,
            clock=time.monotonic,
            say=self._screen.say,
        )

    async def _started(self) -> None:
        await self._site.start()
        try:
            await self._execution.open()
        except BrowserError as error:
            raise CannotStart(f"the notebook could not be opened: {error}") from error

    async def _shown(self) -> None:
        """The run itself, and its column of the verdict whatever became of it."""
        self._running = True
        try:
            with self._screen:
                done = await unless(self._signals.first, self._together())
        finally:
            self._killer.thaw()
        await self._saved()
        verdict = self._execution.verdict(self._killer.kills, interrupted=not done)
        self._result.columns.append(Column(self._site.title, self._options.how.name, verdict))

    async def _together(self) -> None:
        """The notebook, the kills, and a look at who carries; over when the notebook is."""
        beside = [
            asyncio.create_task(self._killer.run(), name="killer"),
            asyncio.create_task(self._glance(), name="glance"),
        ]
        try:
            await self._execution.run()
        finally:
            for task in beside:
                task.cancel()
            ended = await asyncio.gather(*beside, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _glance(self) -> None:
        while True:
            self._carriers = await self._site.carriers()
            await asyncio.sleep(_GLANCE)

    async def _saved(self) -> None:
        try:
            async with asyncio.timeout(_SAVE):
                await self._execution.save()
        except (BrowserError, TimeoutError) as error:
            self._screen.say(f"the notebook could not be saved: {error}")
        else:
            self._result.notebooks.append(self._root / _NOTEBOOK)

    def _event(self, event: ChildEvent) -> None:
        event = replace(event, name=_SHOWN.get(event.name, event.name))
        if not self._running:
            self._progress.event(event)
        elif event.phase is Phase.WAITING and event.name not in self._site.members:
            self._screen.say(f"{event.name}: {event.detail}")

    def _plan_in_words(self) -> tuple[str, str]:
        options, execution = self._options, self._execution
        cells = sum(cell.role is Role.STEPS for cell in execution.cells)
        return (
            f"{self._site.title} runs. {cells} cells print {execution.expected:,} lines in about "
            f"{options.seconds:.0f} s.",
            f"Whoever carries the notebook gets {options.how.name} about every "
            f"{options.every:g} s.",
        )

    def _scene(self) -> Scene:
        execution, killer, site = self._execution, self._killer, self._site
        now = time.monotonic()
        targets = [kill.target for kill in killer.kills]
        known = killer.failovers
        return Scene(
            title=site.title,
            elapsed=0.0 if execution.began is None else now - execution.began,
            seconds=self._options.seconds,
            cell=0 if execution.current is None else execution.current.cell.number,
            cells=sum(cell.role is Role.STEPS for cell in execution.cells),
            lines=execution.lines,
            expected=execution.expected,
            kills=len(targets),
            last=known[-1] if known and known[-1] != float("inf") else None,
            members=tuple(
                MemberView(
                    name,
                    "frozen" if name in killer.frozen else _word(self._roster.phase(name)),
                    self._roster.pid(name),
                    name in self._carriers,
                    targets.count(name),
                )
                for name in site.members
            ),
        )


def _word(phase: Phase) -> str:
    return "restarting" if phase in {Phase.WAITING, Phase.STARTING} else phase.value
