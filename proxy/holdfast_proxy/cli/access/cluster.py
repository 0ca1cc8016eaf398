"""The cluster as one command sees it: the proxies' own document, and who of those it asked kept
silent. Pure but for ``look``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .client import Client, Silent
from .exits import Exit, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """``document``: GET /holdfast/v1/cluster. ``silent``: proxies that were asked in vain."""

    document: Mapping[str, Any]
    silent: Sequence[Silent] = field(default_factory=tuple)

    @property
    def proxies(self) -> list[dict[str, Any]]:
        return list(self.document.get("proxies", ()))

    @property
    def launchers(self) -> list[dict[str, Any]]:
        return list(self.document.get("launchers", ()))

    @property
    def kernels(self) -> list[dict[str, Any]]:
        return list(self.document.get("kernels", ()))

    @property
    def timeline(self) -> list[dict[str, Any]]:
        return list(self.document.get("timeline", ()))


def look(client: Client, *, timeline: int = 0) -> Seen:
    """Raises Unreachable, Refused."""
    document = client.get(f"/holdfast/v1/cluster?timeline={timeline}")
    if not isinstance(document, dict) or document.get("version") != 1:
        raise Refused("that is no answer of a Holdfast proxy of this version", status=200)
    seen = {str(proxy.get("url", "")).rstrip("/") for proxy in document.get("proxies", ())}
    missed = [item for item in client.silent if item.url not in seen]
    # Those that run beside the one that answered (`holdfast up`) and are not even registered.
    missed_urls = {item.url for item in missed}
    missed += [
        Silent(url, "it is not registered")
        for url in client.site.expected
        if url not in seen and url not in missed_urls
    ]
    return Seen(document=document, silent=tuple(missed))


def troubles(seen: Seen) -> list[str]:
    """What is wrong, a sentence each; empty when all is well. Pure."""
    found = []
    etcd = seen.document.get("etcd", {})
    if not etcd.get("reachable", True):
        found.append(
            "etcd does not answer: open notebooks go on; starts, deletes and takeovers wait. "
            "Look at etcd, then `holdfast doctor`"
        )
    found += [f"no proxy answers at {item.url}: {item.why}" for item in seen.silent]
    for proxy in seen.proxies:
        if proxy.get("status") in ("degraded", "unreachable"):
            why = f": {proxy['message']}" if proxy.get("message") else ""
            found.append(f"{proxy['id']} is {proxy['status']}{why}")
    if not any(launcher.get("alive") for launcher in seen.launchers):
        found.append("no launcher is alive: no kernel can be started")
    for launcher in seen.launchers:
        if not launcher.get("alive"):
            found.append(
                f"{launcher['id']} sends no heartbeats: its {launcher.get('kernels', 0)} kernels "
                "go on, no new ones are started there"
            )
    lost = sum(kernel.get("state") == "unreachable" for kernel in seen.kernels)
    if lost:
        found.append(f"{lost} kernel{'s are' if lost > 1 else ' is'} unreachable")
    return found


def exit_of(found: Sequence[str]) -> Exit:
    return Exit.DEGRADED if found else Exit.OK
