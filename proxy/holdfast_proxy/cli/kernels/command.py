"""`holdfast kernels`: list, show, log, logs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

import click

from ..access.exits import CommandFailed, Exit, Refused
from ..access.naming import known_id
from ..access.options import cluster_options, json_option, output_options
from ..completion.names import complete_kernel

if TYPE_CHECKING:
    from ..access.client import Client
    from ..access.cluster import Seen
    from .messages import Transcript

#: Lines that one question for a log asks for.
_BATCH = 1_000
_FOLLOW_SECONDS = 1.0
_ALL_LINES = 2_000

_kernel_argument = click.argument("kernel", metavar="ID", shell_complete=complete_kernel)


class _ListByDefault(click.Group):
    """``holdfast kernels --json`` is ``holdfast kernels list --json``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def kernels() -> None:
    """Show kernels. An ID may be the beginning of one.

    Without a command: list.
    """


@kernels.command("list")
@cluster_options
@output_options
def list_kernels(client: Client, as_json: bool, watch: float | None) -> None:
    """Show every kernel."""
    from ..display.screen import Page, Screen
    from .page import kernels_page

    def page() -> Page:
        return kernels_page(_look(client), datetime.now(UTC))

    sys.exit(Screen(as_json=as_json).run(page, watch=watch))


@kernels.command()
@_kernel_argument
@cluster_options
@output_options
def show(client: Client, kernel: str, as_json: bool, watch: float | None) -> None:
    """Show one kernel in full, and what happened to it."""
    from ..display.screen import Page, Screen
    from .page import kernel_page

    def page() -> Page:
        seen = _look(client, timeline=_ALL_LINES)
        found = _find(seen, kernel)
        lines = [line for line in seen.timeline if line.get("kernel") == found]
        row = next(row for row in seen.kernels if row["id"] == found)
        return kernel_page(row, lines[-20:], datetime.now(UTC))

    sys.exit(Screen(as_json=as_json).run(page, watch=watch))


@kernels.command()
@_kernel_argument
@click.option("--from", "first", type=click.IntRange(1), default=1, help="The first message.")
@click.option("--all", "everything", is_flag=True, help="Every message, one line each.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@cluster_options
@json_option
def log(
    client: Client, kernel: str, first: int, everything: bool, follow: bool, as_json: bool
) -> None:
    """Show a kernel's messages as text: what was run and what it said.

    With --json the messages themselves, one in a line. Only the kernel's own user may read them.
    """
    from .messages import Transcript

    kernel_id = _find_own(client, kernel)
    transcript = Transcript(colours=sys.stdout.isatty(), everything=everything)
    transcript.next = first
    try:
        while True:
            read_log(client, kernel_id, transcript, as_json=as_json, say=_write)
            if not follow:
                sys.exit(int(Exit.OK))
            time.sleep(_FOLLOW_SECONDS)
    except KeyboardInterrupt:
        sys.exit(int(Exit.OK))
    except Refused as error:
        raise _explained(error) from error


@kernels.command()
@_kernel_argument
@click.option(
    "-n", "--lines", type=click.IntRange(1, 5000), default=100, show_default=True, help="At most."
)
@cluster_options
@json_option
def logs(client: Client, kernel: str, lines: int, as_json: bool) -> None:
    """Show what a kernel and its keeper wrote to stdout and stderr, also of a failed start."""
    import json

    kernel_id = _find_own(client, kernel)
    try:
        found = client.get(f"/api/kernels/{quote(kernel_id)}/output?lines={lines}")
    except Refused as error:
        raise _explained(error) from error
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        click.echo(output_text(found), nl=False)


def read_log(
    client: Client,
    kernel_id: str,
    transcript: Transcript,
    *,
    as_json: bool,
    say: Callable[[str], None],
) -> None:
    """Everything from ``transcript.next`` on that there is now. Raises Unreachable, Refused."""
    while True:
        path = f"/api/kernels/{quote(kernel_id)}/log?from={transcript.next}&limit={_BATCH}"
        count = 0
        with client.stream(path) as lines:
            for line in lines:
                count += b'"gap"' not in line[:8]
                text = transcript.take(line)
                say(line.decode("utf-8", "replace") if as_json else text)
        if count < _BATCH:
            return


def output_text(found: dict[str, object]) -> str:
    """Pure. What ``GET /api/kernels/{id}/output`` answered, for people."""
    from ..display.text import safe

    output = found.get("output")
    parts = []
    if found.get("reason"):
        parts.append(f"-- the kernel is {found.get('state')}: {safe(str(found['reason']))} --")
    if not isinstance(output, dict) or not any(output.values()):
        parts.append(f"-- nothing was written, or {found.get('launcher')} has it no more --")
        return "\n".join(parts) + "\n"
    for name in sorted(output):
        text = safe(str(output[name])).rstrip("\n")
        if text:
            parts += [f"-- {name} --", text]
    return "\n".join(parts) + "\n"


def _look(client: Client, *, timeline: int = 0) -> Seen:
    from ..access.cluster import look

    return look(client, timeline=timeline)


def _find(seen: Seen, text: str) -> str:
    known = {str(kernel["id"]) for kernel in seen.kernels}
    return known_id(text, known, "kernel")


def _find_own(client: Client, text: str) -> str:
    """The id of a kernel for its own user, who need not be an administrator. A whole id is not
    looked up: a kernel that died long ago is on no list."""
    with contextlib.suppress(ValueError):
        return str(UUID(text))
    try:
        return _find(_look(client), text)
    except Refused as error:
        if error.status != 403:
            raise
    known = {str(row["id"]) for row in client.get("/api/kernels")}
    return known_id(text, known, "kernel of yours")


def _explained(error: Refused) -> CommandFailed:
    if error.status == 404:
        return CommandFailed(
            "the kernel is not there any more, or belongs to another user: only that user may "
            "read its messages"
        )
    return error


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
