"""A front end in Node, driven line by line: tests/frontends/notebook.mjs and what it told.

The library in it (@jupyterlab/services) reconnects by itself; nothing here helps it. Every event
keeps the time at which it happened in that process.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from support.cluster import clean_env

FOLDER = Path(__file__).parents[1] / "frontends"
#: The library waits up to 30 s before it looks at an address again that answered nothing.
PATIENCE = 75.0
#: Characters of one event: a cell's output of some MB is one line.
_LINE_LIMIT = 64 * 1024 * 1024

Event = dict[str, Any]
T = TypeVar("T")


def node() -> str:
    """The path of node; a named skip (in CI a failure) without it or its packages."""
    found = shutil.which("node")
    if found is None or not (FOLDER / "node_modules" / "@jupyterlab").is_dir():
        missing = "Node or its packages are missing: make frontend-tests installs the packages"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@dataclass
class Cell:
    """What the front end showed of one execute_request."""

    name: str
    events: list[Event] = field(default_factory=list)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    def streamed(self, name: str) -> str:
        return "".join(
            event["content"]["text"]
            for event in self.of("iopub")
            if event["type"] == "stream" and event["content"]["name"] == name
        )

    @property
    def text(self) -> str:
        return self.streamed("stdout")

    @property
    def stderr(self) -> str:
        return self.streamed("stderr")

    @property
    def doubled(self) -> list[str]:
        """Message ids of output that was shown more than once, in the order of their return."""
        seen: set[str] = set()
        doubled = []
        for event in self.of("iopub"):
            if event["id"] in seen:
                doubled.append(str(event["id"]))
            seen.add(str(event["id"]))
        return doubled

    @property
    def once(self) -> str:
        """stdout without what came a second time."""
        seen: set[str] = set()
        text = ""
        for event in self.of("iopub"):
            if event["type"] == "stream" and event["content"]["name"] == "stdout":
                text += "" if event["id"] in seen else event["content"]["text"]
                seen.add(str(event["id"]))
        return text

    @property
    def reply(self) -> dict[str, Any]:
        """The one reply's content."""
        (reply,) = self.of("reply")
        return dict(reply["content"])

    def longest_silence(self, since: float) -> float:
        """Seconds without output around or after ``since`` (time.monotonic)."""
        times = [event["at"] for event in self.of("iopub") if event["type"] == "stream"]
        return max((late - early for early, late in pairwise(times) if late > since), default=0.0)


class FrontEnd:
    """One Node process with one kernel connection."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[Event] = []
        self.cells: dict[str, Cell] = {}
        self._process = process
        self._arrived = asyncio.Event()
        self._calls = 0
        self._reader = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        return f"<FrontEnd {self.connections} {self.statuses} {self.close_codes}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    # --- what it told ---

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def connections(self) -> list[str]:
        """connectionStatus in the order of its changes."""
        return [event["status"] for event in self.of("connection")]

    @property
    def statuses(self) -> list[str]:
        """The kernel's status as shown, in the order of its changes."""
        return [event["status"] for event in self.of("status")]

    @property
    def close_codes(self) -> list[int]:
        return [event["code"] for event in self.of("close")]

    @property
    def kernel_id(self) -> str:
        return str(self.of("kernel")[-1]["id"])

    @property
    def session_id(self) -> str:
        return str(self.of("kernel")[-1]["session"])

    # --- what it is told ---

    async def do(self, command: str, **arguments: Any) -> Event:
        """Run a command to its end; fails the test when the library rejects it."""
        answer = await self.attempt(command, **arguments)
        assert answer["event"] == "ok", f"{command}: {answer}"
        return answer

    async def attempt(self, command: str, **arguments: Any) -> Event:
        """Run a command; its ``ok`` or ``failed`` event."""
        call = await self.tell(command, **arguments)
        return await self.wait_for(
            lambda: next((event for event in self.events if event.get("call") == call), None),
            what=f"an answer to {command}",
        )

    async def tell(self, command: str, **arguments: Any) -> int:
        """Send a command; does not wait."""
        self._calls += 1
        assert self._process.stdin is not None
        line = json.dumps({"do": command, "call": self._calls, **arguments})
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()
        return self._calls

    async def execute(self, name: str, code: str, **options: Any) -> Cell:
        """Send a cell; does not wait for anything but its being sent or queued."""
        cell = self.cells[name] = Cell(name)
        await self.do("execute", cell=name, code=code, **options)
        return cell

    async def run(self, name: str, code: str, **options: Any) -> Cell:
        """Send a cell and wait until the library calls it done."""
        return await self.wait_done(await self.execute(name, code, **options))

    async def wait_done(self, cell: Cell, seconds: float = PATIENCE) -> Cell:
        await self.wait_for(
            lambda: cell.of("done") or cell.of("cancelled"), seconds, what=f"the end of {cell.name}"
        )
        return cell

    async def wait_text(self, cell: Cell, text: str, seconds: float = PATIENCE) -> None:
        await self.wait_for(lambda: text in cell.text, seconds, what=f"{text!r} in {cell.name}")

    async def wait_connected(self, seconds: float = PATIENCE) -> None:
        await self.wait_for(
            lambda: self.connections[-1:] == ["connected"], seconds, what="a connection"
        )

    async def wait_for(
        self, condition: Callable[[], T | None], seconds: float = PATIENCE, *, what: str
    ) -> T:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + 0.5):
                    await self._arrived.wait()
            except TimeoutError:
                # conditions may look at more than events: a file, a process
                assert time.monotonic() < deadline, f"{what}: not within {seconds} s; {self}"
        return value

    async def close(self) -> None:
        """End the process, as closing a browser does."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            event = json.loads(line)
            self.events.append(event)
            cell = self.cells.get(str(event.get("cell")))
            if cell is not None:
                cell.events.append(event)
            self._arrived.set()


@asynccontextmanager
async def front_end(log: Path) -> AsyncIterator[FrontEnd]:
    """A front end without a kernel yet; its console goes to ``log``."""
    with log.open("ab") as console:
        process = await asyncio.create_subprocess_exec(
            node(),
            str(FOLDER / "notebook.mjs"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=console,
            env=clean_env(),
            limit=_LINE_LIMIT,
        )
    end = FrontEnd(process)
    try:
        yield end
    finally:
        await end.close()
