"""Makes nbclient use our kernel manager where nobody names another.

For what makes its ``NotebookClient`` deep inside and reads no configuration for it, as
``jupyter execute`` does (nbclient 0.11): call this in ``jupyter_config.py``.
"""

from __future__ import annotations

from typing import Any

from nbclient import NotebookClient

from .manager import HoldfastKernelManager


def make_default() -> None:
    """From now on, a ``NotebookClient`` of this process runs kernels behind Holdfast unless it is
    given another ``kernel_manager_class``. Idempotent."""

    def ours(self: NotebookClient) -> type:
        return HoldfastKernelManager

    # traitlets gives every subclass this very handler, also those that were made before
    handler: Any = vars(NotebookClient)["_kernel_manager_class_default"]
    handler.func = ours
