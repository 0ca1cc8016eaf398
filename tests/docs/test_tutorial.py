"""The tutorial, command by command, as a newcomer would type it.

What differs from a newcomer's run: the repository's address is a path, addresses of machines are
ports of 127.0.0.1, and cells are run over the notebook server's websocket instead of a browser.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cluster import clean_env, http_status
from support.etcd_server import find_etcd
from support.notebook import Execution, notebook
from support.processes import ManagedProcess, free_port, wait_until
from support.system import need_command
from support.tutorial import checkout
from support.tutorial.machine import Machine, interrupt, write_remote_tools
from support.tutorial.page import Block, blocks

pytestmark = [pytest.mark.long, pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial"
TOKEN = "tutorial"


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    started: list[Machine] = []
    yield started
    for machine in started:
        machine.stop()


def base_env(folder: Path, **more: str) -> dict[str, str]:
    """A newcomer's environment: nothing of ours, and a git that trusts our checkout."""
    config = folder / "gitconfig"
    config.write_text("[safe]\n\tdirectory = *\n")
    env = clean_env(GIT_CONFIG_GLOBAL=str(config), XDG_STATE_HOME="", **more)
    ours = f"{sys.prefix}/bin"
    env["PATH"] = ":".join(part for part in env["PATH"].split(":") if part != ours)
    # MAKEFLAGS carries the variables of a `make tutorial` around us to the newcomer's own make.
    ours_too = ("PYTHON", "MAKE", "MFLAGS")
    return {key: value for key, value in env.items() if not key.startswith(ours_too)}


def with_our_path(text: str) -> str:
    return text.replace("git clone REPOSITORY", f"git clone --quiet {ROOT}")


async def wait(condition: Callable[[], object], what: str, *, seconds: float = 120) -> None:
    await asyncio.to_thread(wait_until, condition, seconds=seconds, what=what)


async def finished(execution: Execution) -> list[str]:
    """The lines of a cell that ended well."""
    await execution.wait_done(180)
    assert execution.reply_content["status"] == "ok"
    assert execution.stderr == ""
    return execution.text.splitlines()


def counting(seconds: int) -> list[str]:
    """What the tutorial's cells print."""
    return [f"{second}.{tenth}" for second in range(1, seconds + 1) for tenth in range(10)]


def lab_address(process: ManagedProcess) -> str | None:
    assert process.alive, process.tail()
    found = re.findall(r"^(http://\S+)/lab\?token=(\S+)$", process.log.read_text(), re.MULTILINE)
    return " ".join(found[-1]) if found else None


async def test_first_steps(tmp_path: Path, machines: list[Machine]) -> None:
    need_command("git", package="git")
    began = time.monotonic()
    # Others on this machine may have the default ports.
    env = base_env(tmp_path, ARGS="--port 0", TMPDIR=str(tmp_path))
    person = Machine(tmp_path / "home", env=env, change=with_our_path)
    machines.append(person)
    todo = iter(blocks(TUTORIAL / "first-steps.md"))

    await asyncio.to_thread(person.run, next(todo))
    if not checkout.is_clean():
        checkout.prepare(person.home / "holdfast")
    running = person.start(next(todo))
    limit = 900 if checkout.is_clean() else 120
    await wait(lambda: lab_address(running), "JupyterLab's address", seconds=limit)
    url, token = str(lab_address(running)).split()
    cells = []
    async with notebook(url, token) as book:
        for block in todo:
            if "make demo" in block.text:
                break
            if block.language == "python":
                cells.append(await book.execute(block.text))
                if len(cells) == 1:
                    await cells[0].wait_text("1.0\n")
            else:
                await asyncio.to_thread(person.run, block)
        assert await finished(cells[0]) == counting(60)
        assert await finished(cells[1]) == ["the last second was 60"]
    assert interrupt(running) in (0, 130, -signal.SIGINT), running.tail()
    assert "ended" not in running.tail(3)
    said = await asyncio.to_thread(person.run, block, seconds=300)
    assert "Nothing was lost and nothing came twice." in said
    assert list(todo) == []
    print(f"first steps took {time.monotonic() - began:.0f} s")


class Site:
    """Three machines that are folders; each of their ports is one of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.homes = folder / "machines"
        self.ports: dict[tuple[str, str], int] = {}
        tools = folder / "bin"
        tools.mkdir()
        write_remote_tools(tools, machines=self.homes)
        (tools / "etcd").symlink_to(find_etcd())
        env = base_env(folder)
        env["PATH"] = f"{tools}:{env['PATH']}"
        names = ("node-1", "node-2", "node-3")
        self.machines = {
            name: Machine(
                self.homes / name, env=env, change=lambda text, name=name: self.local(text, name)
            )
            for name in names
        }

    def port(self, machine: str, port: str) -> int:
        return self.ports.setdefault((machine, port), free_port())

    def local(self, text: str, machine: str) -> str:
        """``text`` with addresses of this machine for those of three."""

        def address(found: re.Match[str]) -> str:
            name = found[1] if found[1].startswith("node-") else machine
            return f"127.0.0.1:{self.port(name, found[2])}"

        def port(found: re.Match[str]) -> str:
            return f"port = {self.port(machine, found[1])}"

        text = re.sub(r"(node-\d|\$NODE|0\.0\.0\.0):(\d+)", address, text)
        text = re.sub(r"^port = (\d+)", port, text, flags=re.MULTILINE)
        hosts = re.compile(r'^(host|advertise_host) = ".*"', re.MULTILINE)
        text = hosts.sub(r'\1 = "127.0.0.1"', text)
        return text.replace("DNS:node-3", "DNS:node-3,IP:127.0.0.1")

    def configure_jupyter(self) -> str:
        """Its port, its token, no browser, and root may run it, as in a container."""
        port = free_port()
        folder = self.machines["node-2"].home / ".jupyter"
        folder.mkdir()
        settings = {
            "ServerApp": {"port": port, "open_browser": False, "allow_root": True},
            "IdentityProvider": {"token": TOKEN},
        }
        (folder / "jupyter_server_config.json").write_text(json.dumps(settings))
        return f"http://127.0.0.1:{port}"

    def end_kernels(self) -> None:
        config = self.machines["node-3"].home / "cluster" / "launcher.toml"
        if config.exists():
            command = [sys.executable, "-m", "holdfast_launcher", "end-kernels"]
            subprocess.run(
                [*command, "--config", str(config)], check=False, timeout=60,
                env=clean_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, machines: list[Machine]) -> Iterator[Site]:
    site = Site(tmp_path)
    # Stopped in this order: the notebook server and the proxies, the launcher, and etcd with them.
    machines.extend(site.machines.values())
    yield site
    site.end_kernels()


async def started(site: Site, block: Block, jupyter_url: str) -> None:
    """Start a block that stays, and wait for what a person would see."""
    (name,) = block.machines
    machine = site.machines[name]
    process = machine.start(block)
    folder = machine.home / "cluster"

    def said(what: str) -> bool:
        assert process.alive, process.tail()
        file = folder / f"{what}.ready"
        return file.exists() and os.path.exists(f"/proc/{json.loads(file.read_text())['pid']}")

    for what in ("proxy", "launcher"):
        if f"holdfast {what}" in block.text:
            await wait(lambda what=what: said(what), f"{what} on {name}")
    if "jupyter lab" in block.text:
        await wait(lambda: http_status(f"{jupyter_url}/api") == 200, "JupyterLab")


async def test_a_cluster_of_your_own(tmp_path: Path, site: Site) -> None:
    need_command("openssl", package="openssl")
    began = time.monotonic()
    clone = tmp_path / "holdfast"
    await asyncio.to_thread(checkout.clone, ROOT, clone)
    for machine in site.machines.values():
        (machine.home / "holdfast").symlink_to(clone)
    url = site.configure_jupyter()
    todo = blocks(TUTORIAL / "own-cluster.md")
    cut = next(n for n, block in enumerate(todo) if block.language == "python")
    await follow(site, todo[:cut], url)
    async with notebook(url, TOKEN) as book:
        cell = await book.execute(todo[cut].text)
        await cell.wait_text("1.0\n")
        await follow(site, todo[cut + 1 :], url)
        assert await finished(cell) == counting(30)
        await book.rest("DELETE", "")
    print(f"a cluster of one's own took {time.monotonic() - began:.0f} s")


async def follow(site: Site, todo: list[Block], jupyter_url: str) -> None:
    for block in todo:
        for name in block.machines:
            machine = site.machines[name]
            if block.language == "toml":
                machine.write(block)
            elif block.stays:
                await started(site, block, jupyter_url)
            else:
                await asyncio.to_thread(machine.run, block)
