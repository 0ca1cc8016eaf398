"""What one launcher is told: a TOML file, read strictly into one frozen value.

It knows files and their permissions; it must not know sockets or processes. A key that nobody
reads is an error that names it, because a misspelt ``single_user`` that is silently ignored is a
security hole. Rejected: secrets in environment variables (every child would inherit them).

Example::

    launcher_id = "node-1"
    state_dir = "/var/lib/holdfast/launcher"
    proxies = ["http://127.0.0.1:8888"]
    join_token_file = "join.token"
    single_user = true
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from holdfast_launcher.environment import is_refused
from holdfast_launcher.errors import ConfigError
from holdfast_launcher.network.tls import is_loopback
from holdfast_launcher.state.statefiles import read_secret

_MIB = 1024 * 1024
#: The keeper that is run unless the configuration names another.
KEEPER_ENTRY = "holdfast_launcher.keeper.main:run"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)

Positive = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=65536)]


class Capacity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much this launcher takes. ``kernels``: keepers alive at one time."""

    kernels: Annotated[int, Meta(ge=0)] = 200


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["console", "json"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class LauncherConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one launcher is told. Seconds, bytes; paths are absolute once loaded."""

    launcher_id: str
    #: 0700; fences, kernels' directories and secrets. On a disk that survives a reboot.
    state_dir: str
    host: str = "127.0.0.1"
    #: 0 binds a free port.
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    #: The host that proxies dial for this launcher and its keepers; needed when ``host`` is a
    #: wildcard address.
    advertise_host: str | None = None
    #: After binding: ``{"id", "pid", "url"}``, written atomically.
    ready_file: str | None = None

    proxies: tuple[str, ...] = ()
    #: PEM file with the authority of the proxies' certificates; None: the system's.
    proxy_ca_file: str | None = None
    #: Heartbeats carry secrets. Plain HTTP is for loopback, unless the network is trusted.
    allow_plain_proxies: bool = False
    join_token: str | None = None
    join_token_file: str | None = None
    heartbeat_interval: Positive = 2.0
    heartbeat_deadline: Positive = 1.5

    engine: Literal["local"] = "local"
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    capacity: Capacity = Capacity()
    #: Everybody's kernels run as the launcher's own user. Without this the local engine refuses.
    single_user: bool = False
    #: ``module:function`` that a keeper runs.
    keeper_entry: str = KEEPER_ENTRY
    keeper_start_timeout: Positive = 30.0

    #: Empty: Jupyter's own search path.
    kernelspec_dirs: tuple[str, ...] = ()
    #: Offer ``python3`` with ipykernel's own spec when no directory has one.
    native_kernel: bool = True
    #: Where the notebook paths of requests begin; None: the launcher's working directory.
    root_dir: str | None = None

    #: Names that clients may set besides KERNEL_*.
    env_whitelist: tuple[str, ...] = ()
    #: Names that kernels inherit from the launcher's environment besides the short built-in list.
    env_passthrough: tuple[str, ...] = ()

    log: LogConfig = LogConfig()
    log_memory_bytes: Bytes = 8 * _MIB
    log_disk_bytes: Bytes = 1024 * _MIB
    #: All kernels' logs on disk together.
    log_node_bytes: Bytes = 16 * 1024 * _MIB
    autorestart_limit: Annotated[int, Meta(ge=0)] = 5

    def __repr__(self) -> str:
        # The join token must not reach a log.
        return f"LauncherConfig(launcher_id={self.launcher_id!r}, state_dir={self.state_dir!r})"

    @property
    def state(self) -> Path:
        return Path(self.state_dir)

    @property
    def kernels(self) -> Path:
        """One directory per kernel."""
        return self.state / "kernels"

    @property
    def log_quota(self) -> Path:
        """Where keepers agree on what their logs take of the disk."""
        return self.state / "logs"

    @property
    def plain(self) -> bool:
        """Whether listeners speak plain HTTP: on loopback only."""
        return is_loopback(self.host)


def load_config(path: Path) -> LauncherConfig:
    """Read ``path``. Relative paths in it are relative to it. Raises ConfigError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if "join_token" in document:
            read_secret(path)  # for its check of who else may read the file
    except PermissionError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    return parse_config(document, base=path.resolve().parent)


def parse_config(document: dict[str, Any], *, base: Path) -> LauncherConfig:
    """Check ``document`` and make it absolute and complete. Raises ConfigError naming the key."""
    try:
        config = msgspec.convert(document, LauncherConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error))) from error
    changes: dict[str, Any] = {"state_dir": _absolute(config.state_dir, base)}
    for key in ("ready_file", "proxy_ca_file", "root_dir"):
        value = getattr(config, key)
        if value is not None:
            changes[key] = _absolute(value, base)
    changes["kernelspec_dirs"] = tuple(_absolute(item, base) for item in config.kernelspec_dirs)
    changes["proxies"] = tuple(url.rstrip("/") for url in config.proxies)
    if config.join_token_file is not None:
        changes["join_token"] = _join_token(config, base)
    config = msgspec.structs.replace(config, **changes)
    _check(config)
    return config


def is_wildcard(host: str) -> bool:
    """Whether ``host`` means every interface, so that nobody can dial it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""


def is_safe_proxy(url: str, *, allow_plain: bool) -> bool:
    """Whether a secret may be sent to this proxy URL."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and (allow_plain or is_loopback(parts.hostname or ""))


def _check(config: LauncherConfig) -> None:
    if not _ID.fullmatch(config.launcher_id):
        raise ConfigError("launcher_id: 1 to 128 letters, digits, dots, dashes or underscores")
    for url in config.proxies:
        if not is_safe_proxy(url, allow_plain=config.allow_plain_proxies):
            raise ConfigError(
                f"proxies: {url!r} is neither https:// nor a loopback http:// address; heartbeats "
                "carry secrets (allow_plain_proxies = true if the network itself is trusted)"
            )
    if is_wildcard(config.host) and config.advertise_host is None:
        raise ConfigError("advertise_host: needed when host is a wildcard address")
    for name in config.env_whitelist:
        if is_refused(name):
            raise ConfigError(
                f"env_whitelist: {name} changes what code a kernel loads, so clients may not set "
                "it; env_passthrough takes it from the launcher's own environment"
            )
    if ":" not in config.keeper_entry:
        raise ConfigError("keeper_entry: expected module:function")


def _join_token(config: LauncherConfig, base: Path) -> str:
    if config.join_token is not None:
        raise ConfigError("join_token and join_token_file: give one of them")
    path = Path(_absolute(config.join_token_file or "", base))
    try:
        return read_secret(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"join_token_file: {error}") from error


def _absolute(value: str, base: Path) -> str:
    return os.path.normpath(base / Path(value).expanduser())


def _explain(message: str) -> str:
    """msgspec's words, with the valid keys when the key itself is the problem."""
    if "unknown field" in message:
        known = ", ".join(sorted(LauncherConfig.__struct_fields__))
        return f"{message}; known keys: {known}"
    return message
