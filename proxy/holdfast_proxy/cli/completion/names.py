"""Completes ids of proxies and kernels by asking the cluster, briefly. Never raises: a shell that
completes has no place for an error."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

#: Seconds: somebody waits with a finger on the key.
_PATIENCE = 1.0


def complete_proxy(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _items(context, "proxies", incomplete, ("status",))


def complete_kernel(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _items(context, "kernels", incomplete, ("state", "name", "user"))


def matching(
    rows: Iterable[dict[str, Any]], incomplete: str, described_by: tuple[str, ...]
) -> list[CompletionItem]:
    """Pure."""
    return [
        CompletionItem(
            str(row.get("id")), help=", ".join(str(row.get(name) or "") for name in described_by)
        )
        for row in rows
        if str(row.get("id", "")).startswith(incomplete)
    ]


def _items(
    context: click.Context, part: str, incomplete: str, described_by: tuple[str, ...]
) -> list[CompletionItem]:
    from ..access.client import Client
    from ..access.cluster import look
    from ..access.site import Given, find_site

    names = ("urls", "token", "token_file", "ca_file", "state_dir")
    given = {name: context.params[name] for name in names if context.params.get(name)}
    try:
        seen = look(Client(find_site(Given(**given), os.environ), timeout=_PATIENCE))
        return matching(seen.document.get(part, ()), incomplete, described_by)
    except (click.ClickException, OSError, ValueError):
        return []
