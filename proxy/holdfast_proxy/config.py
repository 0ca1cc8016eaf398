"""What one proxy is told: a TOML file, read strictly into one frozen value.

This module knows files and their permissions; it must not know sockets, etcd or HTTP. A key that
nobody reads is an error that names it and the valid ones, because a misspelt ``single_user`` that
is silently ignored is a security hole. Secrets are ``Secret`` values, whose repr says nothing, so
that a logged configuration gives nothing away. Rejected: environment variables for secrets (every
child inherits them) and traitlets (the proxy needs no Jupyter).

Example::

    cluster = "default"
    host = "127.0.0.1"
    port = 8888
    token_file = "token"
    cluster_key_file = "cluster.key"
    join_token_file = "join.token"

    [etcd]
    endpoints = ["http://127.0.0.1:2379"]
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
import stat
import tomllib
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

#: Upper bound of a secret file, in bytes; a longer one is surely the wrong file.
_MAX_SECRET_BYTES: Final = 4096
#: Fields that hold a secret; each has a twin ``<name>_file``.
_SECRETS: Final = frozenset({"token", "cluster_key", "join_token", "password"})
#: Fields that name a file without the suffix.
_PATHS: Final = frozenset({"tls_cert", "tls_key"})
#: Files that hold a private key.
_PRIVATE: Final = frozenset({"tls_key", "key_file"})
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_S = TypeVar("_S", bound=Struct)
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key and what to do."""


class Secret:
    """A string that shows itself only when asked by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Never log it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


class Mode(Enum):
    """Who may own kernels (DESIGN section 4)."""

    ACTIVE_ACTIVE = "active-active"
    ACTIVE_PASSIVE = "active-passive"


class LogFormat(Enum):
    JSON = "json"
    CONSOLE = "console"


class UserConfig(Struct, frozen=True, kw_only=True):
    """One ``[[users]]`` table: a name, and the token by which its requests are known."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    token: Secret | None = None
    token_file: str | None = None


class EtcdConfig(Struct, frozen=True, kw_only=True):
    """The ``[etcd]`` table. Files are PEM; with ``user`` comes ``password`` or its file."""

    endpoints: Annotated[tuple[str, ...], Meta(min_length=1)] = ("http://127.0.0.1:2379",)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    user: str | None = None
    password: Secret | None = None
    password_file: str | None = None


class ProxyConfig(Struct, frozen=True, kw_only=True):
    """Everything one proxy is told. Times are seconds, sizes bytes, paths absolute once loaded.

    A ``*_file`` key names a file that holds the secret of the same name; after loading, the
    secret is in the plain field. ``proxy_id`` and ``advertised_url`` are filled by ``bound``
    once the port is known.
    """

    #: Unique in the cluster; default ``<hostname>-<port>``.
    proxy_id: str | None = None
    cluster: str = "default"

    #: Where to listen; port 0 is any free one. ``ready_file`` then says which, as JSON
    #: {"id", "pid", "url"}. ``advertised_url``: where clients and other proxies reach us.
    host: str = "127.0.0.1"
    port: Port = 8888
    advertised_url: str | None = None
    base_url: str = "/"
    ready_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    #: Either [[users]], or one ``token`` for the one ``user``, who is also the user when there is
    #: no token at all (on loopback only). ``single_user`` says that all kernels are that user's.
    users: tuple[UserConfig, ...] = ()
    user: str = "jovyan"
    token: Secret | None = None
    token_file: str | None = None
    single_user: bool = False
    #: Who may see the whole cluster and drain proxies; with ``single_user`` that user may.
    admins: tuple[str, ...] = ()
    #: For front ends that connect to us directly and can send no header on a websocket.
    allow_token_in_query: bool = False
    #: Origins besides our own whose pages may ask; "*" is any.
    allow_origin: tuple[str, ...] = ()

    #: By the first, proxies know each other; by the second, a new launcher is let in.
    cluster_key: Secret | None = None
    cluster_key_file: str | None = None
    join_token: Secret | None = None
    join_token_file: str | None = None

    etcd: EtcdConfig = EtcdConfig()
    mode: Mode = Mode.ACTIVE_ACTIVE
    lease_ttl: Annotated[float, Meta(ge=2)] = 5.0
    node_grace: Seconds = 600.0
    takeover_wait: Seconds = 15.0

    #: Variables besides KERNEL_* that a client may set for its kernel.
    env_whitelist: tuple[str, ...] = ()
    #: Age limit of a lifecycle call that names none, in seconds.
    default_max_age: Seconds = 10.0
    #: What is held for one client whose kernel is not up yet, in bytes.
    standin_bytes: Annotated[int, Meta(ge=65536)] = 8 * 1024 * 1024

    log_format: LogFormat = LogFormat.JSON
    log_level: str = "info"

    @property
    def url(self) -> str:
        """Where others reach this proxy: scheme, host, port, base path, no trailing slash."""
        if self.advertised_url is not None:
            return self.advertised_url.rstrip("/")
        scheme = "http" if self.tls_cert is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{self.base_url}".rstrip("/")

    @property
    def id(self) -> str:
        """The proxy's id; by default ``<hostname>-<port>``, settled once the port is bound."""
        return self.proxy_id or f"{socket.gethostname()}-{self.port}"

    def bound(self, port: int) -> ProxyConfig:
        """This configuration once the listening port is known (``port = 0`` asks for any)."""
        settled = msgspec.structs.replace(self, port=port)
        return msgspec.structs.replace(settled, proxy_id=settled.id, advertised_url=settled.url)


def load_config(path: str | Path) -> ProxyConfig:
    """Read ``path`` and the secret files that it names. Raises ConfigError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    config = parse_config(text, base=path.resolve().parent)
    if _has_inline_secret(tomllib.loads(text)):
        _refuse_readable(path, "configuration")
    return config


def parse_config(text: str, *, base: Path) -> ProxyConfig:
    """Make a configuration from TOML; relative paths count from ``base``. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration is not TOML: {error}") from error
    _refuse_unknown(raw)
    try:
        config = msgspec.convert(raw, ProxyConfig, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the configuration has a wrong value: {error}") from error
    config = _with_files(config, base)
    check_config(config)
    return config


def check_config(config: ProxyConfig) -> None:
    """Raise ConfigError for what no single field can know. A pure function of its argument."""
    if config.proxy_id is not None and _ID.fullmatch(config.proxy_id) is None:
        raise ConfigError("proxy_id must be 1 to 128 of A-Z a-z 0-9 . _ - and begin with no sign")
    if _ID.fullmatch(config.cluster) is None:
        raise ConfigError("cluster must be 1 to 128 of A-Z a-z 0-9 . _ - and begin with no sign")
    if not (config.base_url.startswith("/") and config.base_url.endswith("/")):
        raise ConfigError('base_url must begin and end with "/"')
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ConfigError("tls_cert and tls_key belong together: give both or none")
    if (config.etcd.cert_file is None) != (config.etcd.key_file is None):
        raise ConfigError("etcd.cert_file and etcd.key_file belong together: give both or none")
    if config.log_level.lower() not in {"debug", "info", "warning", "error"}:
        raise ConfigError("log_level must be debug, info, warning or error")
    if not math.isfinite(config.node_grace + config.takeover_wait + config.lease_ttl):
        raise ConfigError("node_grace, takeover_wait and lease_ttl must be finite numbers")
    _check_users(config)


def is_loopback(host: str) -> bool:
    """Whether listening on ``host`` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_users(config: ProxyConfig) -> None:
    names = [user.name for user in config.users]
    if not all(name.isprintable() for name in [*names, config.user]) or not config.user:
        raise ConfigError("user, and the name of each of [[users]], must be printable characters")
    if len(set(names)) != len(names):
        raise ConfigError("two [[users]] have the same name")
    if config.users and (config.token is not None or config.single_user):
        raise ConfigError("[[users]] goes with neither token nor single_user: choose one")
    strangers = sorted(set(config.admins) - set(names or [config.user]))
    if strangers:
        raise ConfigError(f"admins: {', '.join(strangers)} is no user of this proxy")
    tokens = [user.token for user in config.users]
    if config.token is not None:
        tokens.append(config.token)
    if len(set(tokens)) != len(tokens) or None in tokens:
        raise ConfigError("each of [[users]] needs a token (or token_file) of its own")
    if not tokens and not is_loopback(config.host):
        raise ConfigError(
            f"host {config.host!r} is reachable by others and there is no token: set token, "
            "token_file or [[users]], or listen on 127.0.0.1"
        )


def _refuse_unknown(raw: dict[str, Any]) -> None:
    tables: list[tuple[str, Any, type[Struct]]] = [
        ("", raw, ProxyConfig),
        ("etcd.", raw.get("etcd"), EtcdConfig),
    ]
    users = raw.get("users")
    if isinstance(users, list):
        tables += [("users.", user, UserConfig) for user in users]
    for prefix, table, kind in tables:
        if not isinstance(table, dict):
            continue  # absent, or of a wrong type, which convert() says better
        valid = kind.__struct_fields__
        for key in table:
            if key not in valid:
                names = ", ".join(sorted(prefix + name for name in valid))
                raise ConfigError(f"unknown key {prefix + key!r}; the valid ones are: {names}")


def _with_files(config: ProxyConfig, base: Path) -> ProxyConfig:
    """Make paths absolute and read secret files, in the main table and in the nested ones."""
    users = tuple(_settled(user, base) for user in config.users)
    nested = msgspec.structs.replace(config, users=users, etcd=_settled(config.etcd, base))
    return _settled(nested, base)


def _settled(table: _S, base: Path) -> _S:
    changes: dict[str, Any] = {}
    for name in table.__struct_fields__:
        value = getattr(table, name)
        if value is None or not (name.endswith("_file") or name in _PATHS):
            continue
        path = base / Path(value).expanduser()
        changes[name] = str(path)
        secret = name.removesuffix("_file")
        if secret in _SECRETS:
            if getattr(table, secret) is not None:
                raise ConfigError(f"{secret} and {name} exclude each other: give one")
            changes[secret] = _read_secret(path, name)
        elif name in _PRIVATE:
            _refuse_readable(path, name)
    return msgspec.structs.replace(table, **changes)


def _read_secret(path: Path, key: str) -> Secret:
    _refuse_readable(path, key)
    try:
        text = path.read_bytes()[: _MAX_SECRET_BYTES + 1].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from error
    if not text or len(text) > _MAX_SECRET_BYTES:
        raise ConfigError(f"{key}: {path} is empty, or longer than {_MAX_SECRET_BYTES} bytes")
    return Secret(text)


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str) and value:
        return Secret(value)
    raise ValueError("expected a string that is not empty")


def _refuse_readable(path: Path, key: str) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from error
    if mode & 0o077:
        raise ConfigError(
            f"{key}: {path} is open to others (mode {mode:04o}) and holds a secret: chmod 600 it"
        )


def _has_inline_secret(raw: dict[str, Any]) -> bool:
    tables = [raw, raw.get("etcd"), *(raw.get("users") or ())]
    return any(isinstance(table, dict) and not _SECRETS.isdisjoint(table) for table in tables)
