"""papermill's engine ``holdfast``: the engine that it has, with our kernel manager.

``papermill --engine holdfast in.ipynb out.ipynb``; the entry point is in this distribution.
papermill is imported when the class is asked for: the shim is there without it, too.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def _engine() -> type:
    from papermill.engines import NBClientEngine

    from .manager import HoldfastKernelManager

    class HoldfastEngine(NBClientEngine):  # type: ignore[misc] # papermill has no annotations
        """Runs notebooks in kernels behind Holdfast."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            """As papermill's own; a ``kernel_manager_class`` that was asked for holds."""
            kwargs.setdefault("kernel_manager_class", HoldfastKernelManager)
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    return HoldfastEngine


def __getattr__(name: str) -> Any:
    """PEP 562: ``HoldfastEngine``. Raises AttributeError, and ImportError without papermill."""
    if name != "HoldfastEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _engine()
