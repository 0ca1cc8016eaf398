"""From ``engine = "<name>"`` in the launcher's TOML to an engine.

``local`` and ``slurm`` are here; others come with their own distribution, which names a function
in the entry point group ``holdfast.engines``. It knows entry points and imports; an engine is
imported only when it is asked for. Built in wins: an installed package cannot take a name over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from holdfast_launcher.config import KEEPER_ENTRY, LauncherConfig
from holdfast_launcher.engines.contract import Engine
from holdfast_launcher.engines.names import BUILT_IN, GROUP, engine_names
from holdfast_launcher.errors import ConfigError
from holdfast_launcher.reaper import Reaper

#: What the keeper's entry imports when it runs rather than when it is imported.
_PRELOAD = ("holdfast_launcher.keeper.kernel", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSite:
    """Where an engine works. ``settings``: its own table of the TOML, unchecked; ``environment``:
    what the launcher passes to processes of its own."""

    config: LauncherConfig
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    reaper: Reaper | None = None


def build_engine(site: EngineSite) -> Engine:
    """The engine that the configuration names. Raises ConfigError: no such engine, or settings
    that it does not take."""
    name = site.config.engine
    make = _find(name)
    for other in site.config.engines:
        if other != name:
            raise ConfigError(f"engines.{other}: this launcher's engine is {name!r}")
    return make(site)


def make_local(site: EngineSite) -> Engine:
    """The local engine. It has no settings of its own."""
    from holdfast_launcher.engines.local import LocalEngine

    if site.settings:
        raise ConfigError(f"engines.local: no such keys: {', '.join(site.settings)}")
    config = site.config
    return LocalEngine(
        entry=config.keeper_entry,
        environment=site.environment,
        start_timeout=config.keeper_start_timeout,
        reaper=site.reaper,
        preload=_PRELOAD if config.keeper_entry == KEEPER_ENTRY else (),
    )


def _find(name: str) -> Callable[[EngineSite], Engine]:
    place = BUILT_IN.get(name)
    if place is not None:
        module, _, function = place.partition(":")
        make: Callable[[EngineSite], Engine] = getattr(import_module(module), function)
        return make
    for point in entry_points(group=GROUP, name=name):
        try:
            loaded: Callable[[EngineSite], Engine] = point.load()
        except Exception as error:  # other people's code, at its import
            raise ConfigError(f"engine: {name!r} cannot be loaded: {error!r}") from error
        return loaded
    known = ", ".join(engine_names())
    raise ConfigError(f"engine: there is no {name!r} here; known: {known}")
