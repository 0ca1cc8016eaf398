"""One run of `holdfast up`, from the lock on the state directory to the last process's end.

The first SIGINT, SIGTERM or SIGHUP stops the tree in order, a second one at once. A start that
fails ends what was started and shows the last lines of the log of the child that failed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from . import leftovers, ports
from .child import StartFailed
from .etcd_binary import EtcdBinary, find
from .plan import CLUSTER_KEY, JOIN_TOKEN, LAB_TOKEN, TOKEN, Plan, UpOptions
from .progress import Progress
from .spawning import become_subreaper, last_lines
from .specs import RealSpecs
from .state_dir import StateDir, write_json
from .tree import Tree

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds that children of an earlier run get to end.
_LEFTOVER_GRACE = 5.0
#: Exit codes: all is well; it did not start; a second signal ended everything at once.
OK, FAILED, FORCED = 0, 1, 130


class Signals:
    """Counts the signals that ask for the end."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Signals first={self.first.is_set()} second={self.second.is_set()}>"

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self.received)

    def received(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def run(options: UpOptions, state: StateDir, say: Callable[[str], None]) -> int:
    """Run the tree until a signal; ``say`` gets the lines for standard output.

    Returns an exit code. Raises NoEtcd, PortTaken or OSError before anything was started.
    """
    etcd = find(os.environ)
    signals = Signals()
    signals.listen()
    become_subreaper()
    state.cluster_file.unlink(missing_ok=True)  # a killed run leaves it: nothing in it is true
    await _end_leftovers(state)
    plan = Plan(options, choose_ports(options, state), state)
    token = make_secrets(state, options)
    timeout = aiohttp.ClientTimeout(total=2.0)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        progress = Progress()
        specs = RealSpecs(plan, etcd=etcd.path, env=os.environ, token=token, http=http)
        tree = Tree(plan, specs=specs, env=os.environ, http=http, listener=progress.event)
        return await _live(tree, etcd, signals, progress, say)


async def _live(
    tree: Tree, etcd: EtcdBinary, signals: Signals, progress: Progress, say: Callable[[str], None]
) -> int:
    code = OK
    try:
        with progress:
            if etcd.caution:
                progress.say(etcd.caution)
            started = await unless(signals.first, tree.start())
        if started:
            for line in addresses(tree.plan):
                say(line)
            await signals.first.wait()
    except StartFailed as failure:
        code = FAILED
        log = tree.plan.state.log_file(failure.name)
        progress.say(f"{failure}; the end of {log}:\n{last_lines(log)}")
    finally:
        progress.stopping(_farewell(tree.plan.options))
        stopped = await unless(signals.second, tree.stop())
        if not stopped:
            progress.say("ending everything at once")
            await tree.kill()
            code = FORCED
    return code


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do ``work`` to its end unless ``event`` comes first; whether it came to its end."""
    doing = asyncio.create_task(work)
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        doing.result()
        return True
    finally:
        waiting.cancel()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


def addresses(plan: Plan) -> list[str]:
    """What is said when all is ready. JupyterLab's address is the last line, and only that."""
    keep = "kernels stay" if plan.options.keep_kernels else "kernels end too"
    lines = [
        f"state directory: {plan.state.path} (tokens are in cluster.json)",
        f"Ctrl-C stops everything; {keep}",
        *(f"{name}: {url}" for name, url in zip(plan.proxy_names, plan.proxy_urls, strict=True)),
    ]
    if plan.options.lab:
        lab_token = plan.state.secret(LAB_TOKEN)
        lines += ["JupyterLab:", f"{plan.lab_url}/lab?token={lab_token}"]
    return lines


def _farewell(options: UpOptions) -> str:
    kernels = "keeping the kernels" if options.keep_kernels else "kernels too"
    return f"stopping ({kernels}); once more to end everything at once"


def choose_ports(options: UpOptions, state: StateDir) -> ports.Ports:
    """The ports of this run, kept for the next one. Raises PortTaken."""
    chosen = ports.choose(
        options.port,
        proxies=options.proxies,
        launchers=options.launchers,
        earlier=ports.Ports.from_json(state.read_json(state.ports_file)),
    )
    write_json(state.ports_file, chosen.to_json())
    return chosen


def make_secrets(state: StateDir, options: UpOptions) -> str:
    """Make or find every secret file that the plan names; the clients' token."""
    for name in (CLUSTER_KEY, JOIN_TOKEN, LAB_TOKEN):
        state.secret(name)
    return state.secret(TOKEN, value=options.token)


async def _end_leftovers(state: StateDir) -> None:
    found = leftovers.from_json(state.read_json(state.children_file))
    await leftovers.end(found.values(), grace=_LEFTOVER_GRACE)
