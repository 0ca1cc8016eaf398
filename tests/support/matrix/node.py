"""What a launcher's node holds: keepers and kernels by their state files, and by their processes.

For faults that end them one by one, and for counting what is left over: every process that a
launcher started is looked for by its state directory in command line or environment, so that one
that no file names any more is found, too.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

#: In every kernel's environment: its id, whoever its parent is now.
_KERNEL_ID = "KERNEL_ID"


@dataclass(frozen=True)
class Node:
    """The node of one launcher. ``state``: the launcher's state directory."""

    state: Path

    def keeper(self, kernel_id: str) -> dict[str, Any]:
        """What the kernel's keeper says of itself."""
        file = self.state / "kernels" / kernel_id / "keeper.json"
        return dict(json.loads(file.read_text()))

    def kernel_ids(self) -> set[str]:
        """Kernels that have a keeper's file here."""
        folder = self.state / "kernels"
        return {file.parent.name for file in folder.glob("*/keeper.json")}

    def kill_keeper(self, kernel_id: str) -> dict[str, Any]:
        """kill -9; what it had said of itself."""
        file = self.keeper(kernel_id)
        psutil.Process(int(file["pid"])).kill()
        return file

    def kill_kernel(self, kernel_id: str) -> None:
        """kill -9 of the kernel alone."""
        psutil.Process(int(self.keeper(kernel_id)["kernel"]["pid"])).kill()

    def lose_power(self, launcher: int) -> None:
        """kill -9 of the launcher and of everything that it has started, at once."""
        root = psutil.Process(launcher)
        doomed = [root, *root.children(recursive=True)]
        for kernel_id in self.kernel_ids():
            file = self.keeper(kernel_id)
            for pid in (file["pid"], (file["kernel"] or {}).get("pid")):
                with suppress(psutil.NoSuchProcess):
                    doomed.append(psutil.Process(int(pid)))
        for process in doomed:  # nobody is to see another one's end
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self, kernel_id: str) -> list[psutil.Process]:
        """Kernels of this id that live, by their environment: none when it is gone for good."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                here = process.environ().get(_KERNEL_ID) == kernel_id
                if here and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found
