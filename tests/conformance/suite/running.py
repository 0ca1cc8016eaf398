"""Runs every case against one server, and makes the table of several runs.

A case that fails says why in one line. Knows no server; whoever calls starts it.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from conformance.suite import kernel_cases, server_cases, session_cases, websocket_cases
from conformance.suite.api import Answer, Api
from conformance.suite.registry import CASES, Case

#: The modules whose cases are registered by importing them.
MODULES: Final = (server_cases, kernel_cases, session_cases, websocket_cases)
#: In the table's order.
GROUPS: Final = ("server", "access", "kernelspecs", "kernels", "sessions", "websocket")
#: Seconds for one case, generous: it is a bound, not a measure.
LIMIT: Final = 90.0


@dataclass
class Run:
    """One server's results: case name → None, or why it failed."""

    server: str
    failures: dict[str, str | None] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    seen: list[tuple[str, str, Answer]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(self.took.values())

    @property
    def passed(self) -> int:
        return sum(failure is None for failure in self.failures.values())


async def run_cases(servers: Mapping[str, tuple[str, str]], *, only: str = "") -> list[Run]:
    """Run the cases whose name contains ``only`` against servers: name → (url, token).

    The servers run at the same time, each its cases one after another. What may take a server
    down comes when all are through with the rest.
    """
    timeout = aiohttp.ClientTimeout(total=LIMIT)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        runs = [Run(name) for name in servers]
        apis = [Api(url.rstrip("/") + "/", token, session) for url, token in servers.values()]
        for last in (False, True):
            cases = [item for item in CASES if only in item.name and item.last == last]
            await asyncio.gather(
                *(_run_all(cases, run, api) for run, api in zip(runs, apis, strict=True))
            )
        for run, api in zip(runs, apis, strict=True):
            run.seen = api.seen
    return runs


async def _run_all(cases: Sequence[Case], run: Run, api: Api) -> None:
    for item in cases:
        start = time.monotonic()
        run.failures[item.name] = await _failure(item, api)
        run.took[item.name] = time.monotonic() - start


async def _failure(item: Case, api: Api) -> str | None:
    try:
        async with asyncio.timeout(LIMIT):
            await item.check(api)
    except Exception as error:  # whatever a server does to a case is that server's result
        text = (str(error) or repr(error)).strip().splitlines()[0]
        where = traceback.extract_tb(error.__traceback__)
        lines = [str(frame.lineno) for frame in where if frame.name == item.name]
        return f"{type(error).__name__} in line {', '.join(lines) or '?'}: {text[:200]}"
    return None


def unexplained(runs: Sequence[Run]) -> list[str]:
    """Failures without a word beside the case: nobody has looked at them."""
    return [
        f"{run.server}: {item.name}: {run.failures[item.name]}"
        for run in runs
        for item in CASES
        if run.failures.get(item.name) is not None and run.server not in item.differs
    ]


def table(runs: Sequence[Run]) -> str:
    """The table in Markdown: a summary, every case, and what differs."""
    names = [run.server for run in runs]
    lines = [_row(["", *names]), _row(["---"] * (len(names) + 1))]
    for group in GROUPS:
        members = [item for item in CASES if item.group == group]
        cells = [
            f"{sum(run.failures[m.name] is None for m in members)} of {len(members)}"
            for run in runs
        ]
        lines.append(_row([group, *cells]))
    lines.append(_row(["**all**", *(f"**{run.passed} of {len(CASES)}**" for run in runs)]))
    notes: dict[str, int] = {}
    for group in GROUPS:
        lines += ["", f"### {group.capitalize()}", "", _row(["", *names])]
        lines.append(_row(["---"] * (len(names) + 1)))
        for item in (item for item in CASES if item.group == group):
            cells = [_cell(run, item, notes) for run in runs]
            lines.append(_row([item.about, *cells]))
    lines += ["", "### What differs, and why", ""]
    lines += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(lines) + "\n"


def _cell(run: Run, item: Case, notes: dict[str, int]) -> str:
    if run.failures[item.name] is None:
        return "yes"
    why = f"**{run.server}**, *{item.about}*: {item.differs.get(run.server, 'not explained yet')}"
    return f"no ({notes.setdefault(why, len(notes) + 1)})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def stale(runs: Sequence[Run]) -> Mapping[str, list[str]]:
    """Explanations of differences that a run has not seen."""
    return {
        run.server: [
            item.name
            for item in CASES
            if run.server in item.differs and run.failures.get(item.name) is None
        ]
        for run in runs
    }
