"""Exit codes of the commands that ask a cluster, and the errors that end with them.

0 ok, 1 failure, 2 usage, 3 degraded (it works, something is wrong), 4 unreachable. Scripts and
probes rely on them, so a command ends with one of these and nothing else.
"""

from __future__ import annotations

from enum import IntEnum
from typing import IO, Any

import click


class Exit(IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    DEGRADED = 3
    UNREACHABLE = 4


class CommandFailed(click.ClickException):
    """Ends the command with ``exit_code``; the message says what happened and what to do."""

    exit_code = int(Exit.FAILURE)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"holdfast: {self.format_message()}", file=file, err=file is None)


class Unreachable(CommandFailed):
    """No proxy answered."""

    exit_code = int(Exit.UNREACHABLE)


class NotNamed(CommandFailed):
    """The command line does not say what is meant."""

    exit_code = int(Exit.USAGE)


class Refused(CommandFailed):
    """A proxy answered no: ``status``, and its machine word ``reason``."""

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
