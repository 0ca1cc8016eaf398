"""From Enterprise Gateway's settings to a proxy's and a launcher's. Pure.

What a file says comes before what a variable says, as in traitlets. Values of other types than
they should be are reported, not guessed at.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .findings import Fate, Finding
from .options import FATES, FORMER, LISTS, PREFIXES, TRAITS, VARIABLES
from .sources import FileConfig

_APP: Final = ("EnterpriseGatewayApp", "EnterpriseGatewayConfigMixin")
_MANAGERS: Final = (
    "RemoteMappingKernelManager", "MappingKernelManager", "AsyncMappingKernelManager",
    "RemoteKernelManager", "KernelManager",
)  # fmt: skip
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: Variables that decide what code runs: a kernelspec may set them, a client may not.
_CODE: Final = ("LD_", "DYLD_", "PYTHON", "BASH_")
_CODE_NAMES: Final = frozenset(
    {"PATH", "ENV", "IFS", "SHELL", "R_HOME", "PERL5LIB", "NODE_OPTIONS"}
)


@dataclass(slots=True)
class Translation:
    """What comes out. ``token`` is a secret; ``hosts``: each is to have a launcher."""

    proxy: dict[str, Any] = field(default_factory=dict)
    launcher: dict[str, Any] = field(default_factory=dict)
    capacity: int | None = None
    token: str | None = None
    hosts: list[str] = field(default_factory=list)
    kernel_dirs: list[str] = field(default_factory=list)
    allowed: list[str] | None = None
    findings: list[Finding] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Translation proxy={sorted(self.proxy)} launcher={sorted(self.launcher)}>"

    def say(self, source: str, fate: Fate, text: str) -> None:
        self.findings.append(Finding(source, fate, text))

    @property
    def loopback(self) -> bool:
        """Whether the proxy would be reached from its own machine only."""
        return _is_loopback(str(self.proxy.get("host", "127.0.0.1")))


class _Unusable(ValueError):
    """A value of another type than the option has."""


def translate(env: Mapping[str, str], config: FileConfig) -> Translation:
    """The whole of it; kernelspecs are `kernelspecs`'s."""
    result = Translation(findings=list(config.findings))
    given = _from_variables(env, result)
    for section in _APP:
        for option, value in config.values.get(section, {}).items():
            name = FORMER.get(option, option)
            given[name] = (f"{config.name}: {section}.{option}", value)
    for option, (source, value) in given.items():
        _take(result, option, source, value)
    _take_sections(result, config)
    _close(result)
    return result


def _from_variables(env: Mapping[str, str], result: Translation) -> dict[str, tuple[str, Any]]:
    """Options that variables set; of two for one option the newer counts. Others are reported."""
    given: dict[str, tuple[str, Any]] = {}
    owners = {name: option for option, names in TRAITS.items() for name in names}
    for option, names in TRAITS.items():
        said = next((name for name in names if name in env), None)
        if said is not None:
            given[option] = (said, env[said])
    for name in sorted(env):
        if not name.startswith("EG_") or name in owners:
            continue
        fate, text = VARIABLES.get(name) or next(
            (told for prefix, told in PREFIXES.items() if name.startswith(prefix)),
            (Fate.NO_COUNTERPART, "not known here; see whether a start script uses it"),
        )
        result.say(name, fate, text)
    return given


def _take(result: Translation, option: str, source: str, value: Any) -> None:
    if value is None or value in ("", [], {}):
        return
    if option in FATES:
        fate, text = FATES[option]
        result.say(source, fate, text)
        return
    take = _TAKERS.get(option)
    if take is None:
        result.say(source, Fate.NO_COUNTERPART, "not known here")
        return
    try:
        take(result, source, _as_list(value) if option in LISTS else value)
    except _Unusable as error:
        result.say(source, Fate.NOT_READ, str(error))


def _as_list(value: Any) -> list[str]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text.replace("'", '"'))
            except ValueError:
                raise _Unusable("not a list") from None
        else:
            value = text.split(",")
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise _Unusable("not a list")
    items = [str(item).strip() for item in value]
    return (
        sorted(filter(None, items))
        if isinstance(value, (set, frozenset))
        else [item for item in items if item]
    )


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _Unusable("not a whole number") from None


def _truth(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes")


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(
    name: str, convert: Callable[[Any], Any], note: str = ""
) -> Callable[[Translation, str, Any], None]:
    """A taker that sets one key of the proxy."""

    def take(result: Translation, source: str, value: Any) -> None:
        result.proxy[name] = convert(value)
        result.say(source, Fate.TAKEN, f"proxy: {name}{f'; {note}' if note else ''}")

    return take


def _base_url(value: Any) -> str:
    inner = str(value).strip("/")
    return f"/{inner}/" if inner else "/"


def _host(value: Any) -> str:
    text = str(value).strip()
    return "0.0.0.0" if text == "*" else text  # noqa: S104 - what the gateway was told, too


def _token(result: Translation, source: str, value: Any) -> None:
    result.token = str(value)
    result.say(source, Fate.TAKEN, "proxy: token_file")


def _client_envs(result: Translation, source: str, value: list[str]) -> None:
    refused = [n for n in value if n.startswith(_CODE) or n in _CODE_NAMES]
    kept = [n for n in value if n not in refused and not n.startswith("KERNEL_")]
    if kept:
        result.proxy["env_whitelist"] = result.launcher["env_whitelist"] = kept
        result.say(source, Fate.TAKEN, "proxy and launcher: env_whitelist")
    if refused:
        result.say(
            source, Fate.NO_COUNTERPART,
            f"{', '.join(refused)}: a client may not say what code runs; set it in the kernelspec",
        )  # fmt: skip


def _inherited_envs(result: Translation, source: str, value: list[str]) -> None:
    result.launcher["env_passthrough"] = value
    result.say(source, Fate.TAKEN, "launcher: env_passthrough, of the launcher's environment")


def _max_kernels(result: Translation, source: str, value: Any) -> None:
    result.capacity = _number(value)
    result.say(source, Fate.TAKEN, "launcher: [capacity] kernels, which counts for each launcher")


def _remote_hosts(result: Translation, source: str, value: list[str]) -> None:
    result.hosts = [host for host in value if host not in _LOOPBACK_NAMES]
    if result.hosts:
        result.say(source, Fate.TAKEN, f"a launcher on each of {', '.join(result.hosts)}")


def _impersonation(result: Translation, source: str, value: Any) -> None:
    if _truth(value):
        text = "kernels run as their launcher's user, not as KERNEL_USERNAME"
        result.say(source, Fate.NO_COUNTERPART, text)


def _users(result: Translation, source: str, value: list[str]) -> None:
    text = (
        f"{', '.join(value)}: who may start kernels is who has a token ([[users]] of the proxy); "
        "KERNEL_USERNAME proves nothing"
    )
    result.say(source, Fate.NO_COUNTERPART, text)


def _unauthorized(result: Translation, source: str, value: list[str]) -> None:
    if value != ["root"]:
        _users(result, source, value)


def _default_kernel(result: Translation, source: str, value: Any) -> None:
    text = f"a start that names no kernelspec starts python3, not {value}"
    result.say(source, Fate.NO_COUNTERPART, text)


def _credentials(result: Translation, source: str, value: Any) -> None:
    result.proxy["allow_credentials"] = _truth(value)
    result.say(source, Fate.TAKEN, "proxy: allow_credentials")


_TAKERS: Final[Mapping[str, Callable[[Translation, str, Any], None]]] = {
    "port": _key("port", _number),
    "ip": _key("host", _host),
    "base_url": _key("base_url", _base_url),
    "auth_token": _token,
    "allow_origin": _key("allow_origin", lambda value: _as_list(value)),
    "allow_headers": _key("allow_headers", lambda value: _as_list(value)),
    "expose_headers": _key("expose_headers", lambda value: _as_list(value)),
    "allow_credentials": _credentials,
    "max_age": _key("preflight_max_age", _number),
    "certfile": _key("tls_cert", str, "clients verify it, launchers too"),
    "keyfile": _key("tls_key", str, "the file must be 0600"),
    "max_kernels": _max_kernels,
    "client_envs": _client_envs,
    "inherited_envs": _inherited_envs,
    "remote_hosts": _remote_hosts,
    "impersonation_enabled": _impersonation,
    "authorized_users": _users,
    "unauthorized_users": _unauthorized,
    "default_kernel_name": _default_kernel,
}


def _take_sections(result: Translation, config: FileConfig) -> None:
    """What other classes than the application are told."""
    for section, options in config.values.items():
        for option, value in options.items():
            source = f"{config.name}: {section}.{option}"
            if section in _APP:
                continue
            if section == "KernelSpecManager":
                _take_kernelspec_option(result, option, source, value)
            elif section in _MANAGERS and option.startswith("cull_"):
                text = "idle kernels are not ended by themselves; DELETE what nobody needs"
                result.say(source, Fate.NO_COUNTERPART, text)
            elif option == "log_level":
                result.proxy["log_level"] = _level(value)
                result.say(source, Fate.TAKEN, "proxy: log_level")
            else:
                result.say(source, Fate.NO_COUNTERPART, "not known here")


def _take_kernelspec_option(result: Translation, option: str, source: str, value: Any) -> None:
    if option == "ensure_native_kernel":
        result.launcher["native_kernel"] = bool(value)
        result.say(source, Fate.TAKEN, "launcher: native_kernel")
    elif option in ("allowed_kernelspecs", "whitelist"):
        result.allowed = _as_list(value)
        result.say(source, Fate.TAKEN, "only these kernelspecs were taken")
    elif option == "kernel_dirs":
        result.kernel_dirs = _as_list(value)
        result.say(source, Fate.TAKEN, "searched for kernelspecs")
    else:
        result.say(source, Fate.NO_COUNTERPART, "not known here")


def _level(value: Any) -> str:
    names = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "error"}
    text = names.get(value, str(value).lower()) if isinstance(value, int) else str(value).lower()
    return text if text in ("debug", "info", "warning", "error") else "info"


def _close(result: Translation) -> None:
    """What the parts have to say about each other."""
    proxy = result.proxy
    if proxy.get("allow_credentials") and "*" in proxy.get("allow_origin", []):
        del proxy["allow_credentials"]
        text = "not with every origin: name the origins, then set allow_credentials"
        result.say("allow_credentials", Fate.NO_COUNTERPART, text)
    if ("tls_cert" in proxy) != ("tls_key" in proxy):
        for name in ("tls_cert", "tls_key"):
            proxy.pop(name, None)
        text = "needs a certificate and a key, in two files"
        result.say("certfile, keyfile", Fate.NO_COUNTERPART, text)
    if result.token is None and not result.loopback:
        text = "none was found, and off loopback a proxy wants one: it was made; give it to clients"
        result.say("auth_token", Fate.NO_COUNTERPART, text)
