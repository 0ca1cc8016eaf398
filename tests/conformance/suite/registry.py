"""What a case is, and the list of all cases.

A case is a coroutine that asks one server over HTTP and asserts what it answers; its docstring is
one sentence for the table. ``differs`` says, by the server's name, why that server does not pass:
it stands beside the check, so that whoever changes one sees the other. Knows no server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from conformance.suite.api import Api

HOLDFAST: Final = "Holdfast"
JUPYTER_SERVER: Final = "Jupyter Server"
KERNEL_GATEWAY: Final = "Kernel Gateway"

Check: TypeAlias = Callable[[Api], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    group: str
    name: str
    about: str
    check: Check
    differs: Mapping[str, str]
    #: It may take a server down for good, so it comes when everything else is over.
    last: bool = False


CASES: Final[list[Case]] = []


def case(
    group: str, differs: Mapping[str, str] | None = None, *, last: bool = False
) -> Callable[[Check], Check]:
    """Register a check; its docstring's first line is the row's text."""

    def register(check: Check) -> Check:
        name = check.__name__
        assert all(name != other.name for other in CASES), f"two cases are called {name}"
        assert check.__doc__, f"{name} needs a docstring: it is the table's text"
        about = check.__doc__.strip().splitlines()[0].rstrip(".")
        CASES.append(
            Case(
                group=group,
                name=name,
                about=about,
                check=check,
                differs=differs or {},
                last=last,
            )
        )
        return check

    return register
