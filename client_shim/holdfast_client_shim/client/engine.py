"""papermill's engine ``holdfast``: the engine that it has, with our kernel manager.

``papermill --engine holdfast in.ipynb out.ipynb``; the entry point is in this distribution.
"""

from __future__ import annotations

from typing import Any

from papermill.engines import NBClientEngine

from .manager import HoldfastKernelManager


class HoldfastEngine(NBClientEngine):  # type: ignore[misc] # papermill has no annotations
    """Runs notebooks in kernels behind Holdfast."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
        """As papermill's own; a ``kernel_manager_class`` that was asked for holds."""
        kwargs.setdefault("kernel_manager_class", HoldfastKernelManager)
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)
