"""What a person sees: a live table while the tree starts, then one line per event.

On a terminal rich draws the table; elsewhere every step is one plain line, so that a log or a
script can follow. All of it goes to standard error: standard output has only the addresses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .child import ChildEvent, Phase


class Progress:
    """A context manager around the start; ``event`` may be called before, in and after it."""

    def __init__(
        self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._began = clock()
        self._states: dict[str, ChildEvent] = {}
        self._live: Live | None = None
        self._quiet = False

    def __repr__(self) -> str:
        return f"<Progress {len(self._states)} children live={self._live is not None}>"

    def __enter__(self) -> Self:
        self._began = self._clock()
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._table,
                refresh_per_second=10,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line for the person, whatever is being drawn."""
        self._console.print(Text(text), soft_wrap=True)

    def stopping(self, text: str) -> None:
        """From here on the children are meant to end; that is no news."""
        self._quiet = True
        self.say(text)

    def event(self, event: ChildEvent) -> None:
        """A child changed; drawn in the table, or said in a line where there is none."""
        self._states[event.name] = event
        if self._quiet or event.phase is Phase.STOPPED:
            return
        # A death is said in every case: a table that is drawn over forgets it.
        if self._live is None or event.phase is Phase.WAITING:
            self.say(self._line(event))

    def _line(self, event: ChildEvent) -> str:
        if event.phase is Phase.WAITING:
            return f"{event.name}: {event.detail}"
        after = f" after {self._clock() - self._began:.1f} s" if event.phase is Phase.READY else ""
        return f"{event.name}: {event.phase.value}{after} (pid {event.pid})"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, event in self._states.items():
            if event.phase is Phase.READY:
                table.add_row(Text("✓", style="green"), name, f"pid {event.pid}")
            else:
                table.add_row(Spinner("dots"), name, event.detail or event.phase.value)
        return table
