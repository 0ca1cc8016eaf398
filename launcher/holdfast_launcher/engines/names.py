"""Which engines there are by name: those of Holdfast, and those that other distributions bring.

Apart from the registry, because the configuration checks names and the registry needs it.
"""

from __future__ import annotations

from importlib.metadata import entry_points

#: Entry point group of engines that come with other distributions.
GROUP = "holdfast.engines"
#: Name → ``module:function`` of the ones that are built in.
BUILT_IN = {
    "local": "holdfast_launcher.engines.registry:make_local",
    "slurm": "holdfast_launcher.engines.slurm:make_engine",
}


def engine_names() -> list[str]:
    """All that can be named."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
