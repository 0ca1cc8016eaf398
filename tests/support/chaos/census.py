"""Which processes of a run live, whose they are, and what they take.

Whatever runs in the run's two network namespaces is of the run; nothing is matched by its name
alone. Keepers and kernels are known by what their launcher's state directory says of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from support.chaos.history import Found, Recorder, Sampled
from support.chaos.network import namespace_of
from support.chaos.site import Site


@dataclass(frozen=True, slots=True)
class Member:
    """A keeper or a kernel by its launcher's files."""

    role: str
    kernel: str


def members(site: Site) -> dict[int, Member]:
    """Keepers and kernels by process id."""
    found: dict[int, Member] = {}
    for config in site.launcher_configs:
        for path in (config.with_suffix("") / "kernels").glob("*/keeper.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads(path.read_text())
                kernel = str(document["kernel_id"])
                found[int(document["pid"])] = Member("keeper", kernel)
                if document["kernel"] is not None:
                    found[int(document["kernel"]["pid"])] = Member("kernel", kernel)
    return found


def count(site: Site, phase: str, now: float) -> list[Found]:
    """Living keepers and kernels, and what is neither and should be nobody."""
    known = members(site)
    events = []
    for process in _ours(site):
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = " ".join(process.cmdline())[:300]
            member = known.get(process.pid)
            if member is None and not _is_keeper_or_kernel(process, command):
                continue
            role, kernel = (member.role, member.kernel) if member else ("stray", "")
            events.append(
                Found(
                    at=now,
                    pid=process.pid,
                    role=role,
                    phase=phase,
                    kernel=kernel,
                    command=f"{process.name()} {command}",
                )
            )
    return events


def _ours(site: Site) -> Iterator[psutil.Process]:
    spaces = {namespace_of("self"), namespace_of(site.network.holder)} - {""}
    for process in psutil.process_iter():
        if namespace_of(process.pid) in spaces:
            yield process


def _is_keeper_or_kernel(process: psutil.Process, command: str) -> bool:
    return "ipykernel" in command or process.name().startswith("holdfast-keeper")


def sample(site: Site, recorder: Recorder, when: str) -> None:
    """Memory and descriptors of every process that should not grow."""
    named = {
        f"proxy-{n}": process.pid for n, process in enumerate(site.proxies) if process.alive
    } | {f"launcher-{n}": process.pid for n, process in enumerate(site.launchers) if process.alive}
    for pid, member in members(site).items():
        if member.role == "keeper":
            named[f"keeper-{member.kernel[:8]}"] = pid
    for name, pid in named.items():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            recorder.write(
                Sampled(
                    at=recorder.now(),
                    process=name,
                    pid=pid,
                    rss=process.memory_info().rss,
                    fds=process.num_fds(),
                    when=when,
                )
            )
