"""Programs that make their NotebookClient deep inside get our kernel manager."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

class Before(NotebookClient):
    pass

notebook = nbformat.v4.new_notebook()
assert NotebookClient(notebook).kernel_manager_class is AsyncKernelManager
from holdfast_client_shim.client import HoldfastKernelManager, make_default
for _ in range(2):
    make_default()

class After(NotebookClient):
    pass

for kind in (NotebookClient, Before, After):
    assert kind(notebook).kernel_manager_class is HoldfastKernelManager, kind
    chosen = kind(notebook, kernel_manager_class=AsyncKernelManager)
    assert chosen.kernel_manager_class is AsyncKernelManager
"""


def test_make_default() -> None:
    """In a process of its own, because it holds for a whole process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
