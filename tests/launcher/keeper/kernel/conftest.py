"""A listener that records, requests as clients send them, and hosts that end with their test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.keeper.kernel.host import Host
from holdfast_launcher.keeper.ports import KernelListener
from holdfast_protocol.jupyter import Message, decode_v1

FAKE = Path(__file__).with_name("fake_kernel.py")


class Recorder(KernelListener):
    """Everything that the kernel side said, in one list, and conditions to wait for."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self._news = asyncio.Event()
        self._by_parent: dict[str, list[tuple[str, Message]]] = {}
        self._outputs: dict[tuple[str, str], list[Message]] = {}
        self._replies: dict[str, Message] = {}

    def _say(self, *what: Any) -> None:
        self.said.append(what)
        self._news.set()

    def published(self, v1: bytes, message: Message) -> None:
        parent = message.parent_id
        self._by_parent.setdefault(parent, []).append(("iopub", message))
        self._outputs.setdefault((parent, message.msg_type), []).append(message)
        self._say("published", v1, message)

    def answered(self, session_id: str, v1: bytes, message: Message) -> None:
        parent = message.parent_id
        self._by_parent.setdefault(parent, []).append((session_id, message))
        if message.msg_type.endswith("_reply"):
            self._replies[parent] = message
        self._say("answered", session_id, v1, message)

    def lost(self, count: int, reason: str) -> None:
        self._say("lost", count, reason)

    def incarnation_ended(self, incarnation: int, state: str, reason: str) -> None:
        self._say("ended", incarnation, state, reason)

    def incarnation_ready(self, incarnation: int) -> None:
        self._say("ready", incarnation)

    def state_changed(self) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], Any], timeout: float = 20.0) -> Any:
        async with asyncio.timeout(timeout):
            while not (value := condition()):
                self._news.clear()
                await self._news.wait()
        return value

    def about(self, request: Message) -> list[tuple[str, Message]]:
        return self._by_parent.get(request.msg_id, [])

    def outputs(self, request: Message, msg_type: str) -> list[Message]:
        return self._outputs.get((request.msg_id, msg_type), [])

    def text(self, request: Message) -> str:
        return "".join(m.content_dict()["text"] for m in self.outputs(request, "stream"))

    def reply(self, request: Message) -> Message | None:
        return self._replies.get(request.msg_id)

    def is_done(self, request: Message) -> bool:
        statuses = self.outputs(request, "status")[-1:]
        idle = [m for m in statuses if m.content_dict()["execution_state"] == "idle"]
        return bool(idle) and self.reply(request) is not None

    async def done(self, request: Message, timeout: float = 20.0) -> dict[str, Any]:
        """Wait for reply and idle; the reply's content."""
        await self.until(lambda: self.is_done(request), timeout)
        reply = self.reply(request)
        assert reply is not None
        return reply.content_dict()

    def kinds(self) -> list[tuple[Any, ...]]:
        """Only the lifecycle: ready, ended, lost."""
        return [said for said in self.said if said[0] in ("ready", "ended", "lost")]

    def check_wire_forms(self) -> None:
        for said in self.said:
            if said[0] in ("published", "answered"):
                assert decode_v1(bytes(said[-2])) == said[-1]


def make_request(
    msg_type: str,
    content: dict[str, Any],
    *,
    session: str = "one",
    channel: str = "shell",
    buffers: tuple[bytes, ...] = (),
    parent: dict[str, Any] | None = None,
) -> Message:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "session": session,
        "username": "ada",
        "date": "2026-01-01T00:00:00.000000Z",
        "version": "5.3",
    }
    return Message.from_dicts(
        channel=channel, header=header, content=content, buffers=buffers, parent=parent
    )


def make_cell(code: str, **changes: Any) -> Message:
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": True,
        "stop_on_error": False,
    }
    return make_request("execute_request", content | changes)


def write_spec(directory: Path, name: str, argv: list[str], **more: Any) -> None:
    place = directory / name
    place.mkdir(parents=True)
    spec = {"argv": argv, "display_name": name, "language": "fake"} | more
    (place / "kernel.json").write_text(json.dumps(spec))


class Bench:
    """Makes hosts in a directory and ends their kernels, by pid, whatever the test did."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.specs = directory / "specs"
        self._hosts: list[Host] = []
        self._pids: set[int] = set()

    def spec(self, name: str, argv: list[str], **more: Any) -> str:
        write_spec(self.specs, name, argv, **more)
        return name

    def fake_spec(self, name: str = "fake", mark: int = 1000, **more: Any) -> str:
        argv = [sys.executable, str(FAKE), "{connection_file}", str(mark)]
        return self.spec(name, argv, **more)

    def config(self, **changes: Any) -> KeeperConfig:
        settings: dict[str, Any] = {
            "kernel_id": str(uuid.uuid4()),
            "nonce": "nonce",
            "spec": "python3",
            "user": "ada",
            "env": {"PATH": os.environ["PATH"], "HOME": str(self.directory)},
            "state_dir": str(self.directory / "state"),
            "credential": "secret",
        }
        if self.specs.exists():
            settings["kernelspec_dirs"] = [str(self.specs)]
        return KeeperConfig(**(settings | changes))

    def host(self, recorder: Recorder, *, start_timeout: float = 30.0, **changes: Any) -> Host:
        host = Host(self.config(**changes), recorder, start_timeout=start_timeout)
        self._hosts.append(host)
        return host

    def watch(self, pid: int) -> None:
        self._pids.add(pid)

    async def close(self) -> None:
        for host in self._hosts:
            pid = host.info().pid
            if pid is not None:
                self._pids.add(pid)
            await host.shutdown(now=True)
        for pid in self._pids:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()


@pytest.fixture
def request_of() -> Callable[..., Message]:
    return make_request


@pytest.fixture(scope="session")
def cell() -> Callable[..., Message]:
    return make_cell


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        await made.close()


class Running:
    """A started host with one open session, shared by a module's tests."""

    def __init__(self, host: Host, recorder: Recorder, bench: Bench) -> None:
        self.host = host
        self.recorder = recorder
        self.bench = bench

    async def run(self, message: Message, session: str = "one", timeout: float = 20.0) -> Any:
        """Send a request and wait for its end; its reply's content."""
        self.host.send(session, message)
        return await self.recorder.done(message, timeout)


@pytest.fixture(scope="session")
def running_host() -> Callable[..., Any]:
    """Start a host: ``await running_host(bench, recorder, **config changes)``."""

    async def start(bench: Bench, recorder: Recorder | None = None, **changes: Any) -> Running:
        recorder = recorder or Recorder()
        host = bench.host(recorder, **changes)
        host.open_session("one")
        await host.start()
        return Running(host, recorder, bench)

    return start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ipython(
    tmp_path_factory: pytest.TempPathFactory, running_host: Callable[..., Any]
) -> AsyncIterator[Running]:
    """One real ipykernel for a whole module."""
    bench = Bench(tmp_path_factory.mktemp("ipython"))
    try:
        yield await running_host(bench)
    finally:
        await bench.close()
