"""Slurm: each kernel, with its keeper, is a batch job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_launcher.engines.contract import Engine
    from holdfast_launcher.engines.registry import EngineSite


def make_engine(site: EngineSite) -> Engine:
    """The engine of ``engine = "slurm"``. Raises ConfigError."""
    from holdfast_launcher.engines.slurm.commands import Commands
    from holdfast_launcher.engines.slurm.engine import SlurmEngine
    from holdfast_launcher.engines.slurm.settings import read_settings

    settings = read_settings(site.settings)
    return SlurmEngine(
        settings=settings,
        commands=Commands(settings, environment=site.environment, reaper=site.reaper),
        launcher_id=site.config.launcher_id,
    )
