"""``[engines.slurm]`` of the launcher's TOML, checked when it is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from holdfast_launcher.engines.resources import parse_memory, parse_time
from holdfast_launcher.errors import ConfigError

Positive = Annotated[float, Meta(gt=0)]


class SlurmSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine is told. Seconds; paths are as the nodes see them."""

    #: Python with ``holdfast[launcher]`` on the nodes.
    python: str = sys.executable
    #: What a kernel gets when neither its kernelspec nor its user says.
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus: Annotated[int, Meta(ge=1)] | None = None
    memory: str | None = None
    time: str | None = None
    #: Further arguments of sbatch, as they are.
    extra_arguments: tuple[str, ...] = ()
    #: Each kernel as its own user (sbatch --uid): the launcher must be root.
    run_as_user: bool = False
    #: With ``run_as_user``: a user with uid 0 may have kernels.
    allow_root: bool = False
    #: A directory that launcher and nodes share, for what a job says before its keeper is there.
    output_dir: str | None = None
    #: Where keepers keep their files on a node; None: its temporary directory.
    node_dir: str | None = None
    #: Seconds before a time limit at which the notebook is told.
    notice: Annotated[int, Meta(ge=0, le=65535)] = 300
    #: How often Slurm is asked when nothing is urgent.
    poll_interval: Positive = 5.0
    #: How long a job may wait for its turn; None: for ever.
    pending_timeout: Positive | None = None
    #: How long a running job may take to have a keeper.
    start_timeout: Positive = 120.0
    #: How long one of Slurm's commands may take.
    command_timeout: Positive = 20.0
    #: Where sbatch, squeue and scancel are; None: on the launcher's PATH.
    bin_dir: str | None = None
    #: slurm.conf, when it is not at Slurm's own place.
    conf: str | None = None


def read_settings(table: Mapping[str, Any]) -> SlurmSettings:
    """Raises ConfigError that names the key."""
    try:
        settings = msgspec.convert(dict(table), SlurmSettings)
    except msgspec.ValidationError as error:
        known = ", ".join(sorted(SlurmSettings.__struct_fields__))
        raise ConfigError(f"engines.slurm: {error}; known keys: {known}") from error
    for name, parse in (("memory", parse_memory), ("time", parse_time)):
        try:
            parse(getattr(settings, name) or "1")
        except ValueError as error:
            raise ConfigError(f"engines.slurm.{name}: {error}") from error
    if settings.run_as_user and os.geteuid() != 0:
        raise ConfigError("engines.slurm.run_as_user: only root may submit for other users")
    for name in ("python", "output_dir", "node_dir", "bin_dir", "conf"):
        value = getattr(settings, name)
        if value is not None and (not value.startswith("/") or "\n" in value):
            raise ConfigError(f"engines.slurm.{name}: an absolute path, not {value!r}")
    return settings
