"""Histories that no cluster made: whole and clean ones, for tests of the checker.

Each session runs cells one after another on a kernel of its own, is reconnected now and then, and
everything ends as it should. What a test wants broken it breaks afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from support.chaos.cells import Cell
from support.chaos.history import (
    Acted,
    Answered,
    Began,
    Called,
    Closed,
    Ended,
    Event,
    Fenced,
    Found,
    Healed,
    Injected,
    Listed,
    Opened,
    Ran,
    Received,
    Sampled,
    Sent,
    Settled,
)

MB = 1_000_000


@dataclass
class Synthesis:
    """Writes a clean history; every choice is ``draw``'s."""

    draw: random.Random
    shims: int = 2
    plains: int = 2
    cells: int = 6
    events: list[Event] = field(default_factory=list)
    _now: float = 1000.0
    _ids: int = 0
    _calls: int = 0

    def make(self) -> list[Event]:
        """The events, in order."""
        self.events.append(Began(at=self._tick(), seed=1, seconds=60.0))
        self._sample("before")
        clients = ["shim"] * self.shims + ["plain"] * self.plains
        kernels = [self._session(client, n) for n, client in enumerate(clients)]
        self.events.append(Settled(at=self._tick()))
        self._end(kernels)
        return self.events

    def _tick(self) -> float:
        self._now += self.draw.uniform(0.001, 0.02)
        return self._now

    def _id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"

    def _session(self, client: str, n: int) -> str:
        kernel, session = f"kernel-{n}", f"{n:x}session-{n}"
        self._call(client, "start", kernel, 201, (kernel,))
        for where in ("launcher 10", f"keeper {100 + n}"):
            token = (1, 50 + n)
            self.events.append(Fenced(at=self._tick(), where=where, kernel=kernel, token=token))
            self.events.append(
                Acted(at=self._tick(), where=where, kernel=kernel, call="start", token=token)
            )
        self._open(session, client, kernel)
        pid = 500 + n
        for number in range(1, self.cells + 1):
            if self.draw.random() < 0.2:
                self._restart(client, kernel, n)
                pid += 100
            self._cell(session, kernel, number, pid)
            if client == "plain" and self.draw.random() < 0.5:
                self._reconnect(session, kernel)
            self._sample("during")
        self._call("prober", "list", "", 200, tuple(f"kernel-{m}" for m in range(n + 1)))
        return kernel

    def _open(self, session: str, client: str, kernel: str) -> None:
        self.events.append(
            Opened(at=self._tick(), session=session, client=client, kernel=kernel, proxy=0)
        )

    def _cell(self, session: str, kernel: str, number: int, pid: int) -> None:
        cell = Cell(session=session, number=number, lines=self.draw.randint(1, 6))
        msg_id = self._id()
        self.events.append(
            Sent(
                at=self._tick(),
                session=session,
                kernel=kernel,
                cell=number,
                msg_id=msg_id,
                lines=cell.lines,
            )
        )
        self.events.append(
            Ran(at=self._tick(), session=session, cell=number, kernel=kernel, pid=pid)
        )
        for line in cell.text.splitlines(keepends=True):
            self._receive(session, msg_id, "stream", text=line, stream="stdout")
        self._receive(session, msg_id, "execute_reply", status="ok")
        self._receive(session, msg_id, "status", state="idle")

    def _receive(self, session: str, parent: str, kind: str, **fields: str) -> None:
        self.events.append(
            Received(
                at=self._tick(),
                session=session,
                msg_id=self._id(),
                parent=parent,
                kind=kind,
                **fields,
            )
        )

    def _reconnect(self, session: str, kernel: str) -> None:
        """The connection broke; the last few messages come again, in their order."""
        number = len([event for event in self.events if isinstance(event, Injected)]) + 1
        at = self._tick()
        self.events.append(
            Injected(at=at, fault=number, kind="proxy-kill", target=0, carried=(session,))
        )
        self.events.append(Closed(at=self._tick(), session=session, code=1006))
        self._open(session, "plain", kernel)
        had = [e for e in self.events if isinstance(e, Received) and e.session == session]
        unique = list({event.msg_id: event for event in had}.values())
        for event in unique[len(unique) - self.draw.randint(0, 3) :]:
            again = {**vars(event), "at": self._tick()}
            self.events.append(Received(**again))
        self.events.append(Healed(at=self._tick(), fault=number))

    def _restart(self, client: str, kernel: str, n: int) -> None:
        self._call(client, "restart", kernel, 200)
        where, token = f"keeper {100 + n}", (1, 50 + n)
        self.events.append(
            Acted(at=self._tick(), where=where, kernel=kernel, call="restart", token=token)
        )

    def _call(
        self, client: str, action: str, kernel: str, status: int, kernels: tuple[str, ...] = ()
    ) -> None:
        self._calls += 1
        asked = "" if action == "start" and client == "shim" else kernel
        self.events.append(
            Called(at=self._tick(), call=self._calls, client=client, action=action, kernel=asked)
        )
        self.events.append(
            Answered(at=self._tick(), call=self._calls, status=status, kernels=kernels)
        )

    def _sample(self, when: str) -> None:
        for n in range(3):
            rss = 80 * MB + self.draw.randrange(MB)
            sample = Sampled(
                at=self._tick(), process=f"proxy-{n}", pid=10 + n, rss=rss, fds=20, when=when
            )
            self.events.append(sample)

    def _end(self, kernels: list[str]) -> None:
        for n in range(3):
            self.events.append(
                Listed(at=self._tick(), proxy=n, kernels=tuple(kernels), phase="quiet")
            )
        for n, kernel in enumerate(kernels):
            for role, pid in (("keeper", 100 + n), ("kernel", 500 + n)):
                found = Found(at=self._tick(), pid=pid, role=role, phase="quiet", kernel=kernel)
                self.events.append(found)
        for kernel in kernels:
            self._call("prober", "delete", kernel, 204)
        for n in range(3):
            self.events.append(Listed(at=self._tick(), proxy=n, kernels=(), phase="emptied"))
        self._sample("after")
        self.events.append(Ended(at=self._tick()))


def clean(seed: int, **sizes: int) -> list[Event]:
    """A clean history."""
    return Synthesis(random.Random(seed), **sizes).make()
