"""What a kernel is given of a machine, and how much of it may be asked for: pure decisions.

Two voices. The kernelspec's ``metadata.holdfast.resources`` is the administrator's, and stands as
it is. A client's ``KERNEL_*`` variables change it, as far as ``[limits]`` of the launcher's TOML
allows; beyond a limit the start is refused and the limit named, never silently cut: a computation
that was given less than it asked for fails later and elsewhere. No engine is known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from msgspec import Meta, Struct

from holdfast_launcher.errors import BadRequest

_UNITS = {"": 2**20, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MEMORY = re.compile(r"(\d{1,12})\s*([KMGT]?)I?B?", re.ASCII | re.IGNORECASE)
_TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d{1,9})\s*([smhd])", re.ASCII | re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d{1,4})-)?(\d{1,4}):(\d{2})(?::(\d{2}))?", re.ASCII)
#: It becomes an argument of a program: a name, and nothing that looks like an option.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}", re.ASCII)

#: Variable of a client → field of ``Resources``.
VARIABLES: Mapping[str, str] = {
    "KERNEL_CPUS": "cpus",
    "KERNEL_MEMORY": "memory",
    "KERNEL_GPUS": "gpus",
    "KERNEL_TIME": "time",
    "KERNEL_PARTITION": "partition",
    "KERNEL_QUEUE": "partition",
    "KERNEL_ACCOUNT": "account",
    "KERNEL_QOS": "qos",
}


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits]``: the most that a client may ask for. None: whatever the engine allows."""

    cpus: Annotated[int, Meta(ge=0)] | None = None
    #: "16G"; a number alone is MiB.
    memory: str | None = None
    gpus: Annotated[int, Meta(ge=0)] | None = None
    #: "8h", "90m", "2-12:00:00".
    time: str | None = None
    #: Empty: any.
    partitions: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one kernel gets; None leaves it to the engine. ``memory`` in bytes, ``time`` in
    seconds, ``labels``: what the machine must have."""

    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None
    time: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def named(self) -> frozenset[str]:
        """The fields that say something."""
        names = ("cpus", "memory", "gpus", "time", "partition", "account", "qos", "labels")
        return frozenset(name for name in names if getattr(self, name))


def decide_resources(
    metadata: object, env: Mapping[str, str], limits: Limits, *, honoured: frozenset[str]
) -> Resources:
    """The kernelspec's word, changed by the client's as far as ``limits`` go.

    ``honoured``: the fields that the engine can give (``Engine.resources``); when it gives none,
    nothing was asked of anybody. Raises BadRequest that names the variable and the limit.
    """
    if not honoured:
        return Resources()
    asked: dict[str, Any] = {}
    for variable, name in VARIABLES.items():
        if variable in env:
            asked[name] = _read(name, env[variable], said_by=variable)
            _check(name, asked[name], limits, variable=variable)
    result = replace(_of_kernelspec(metadata), **asked)
    beyond = result.named - honoured
    if beyond:
        names = ", ".join(sorted(beyond))
        raise BadRequest(
            f"this launcher's engine cannot give what was asked for: {names}", reason="resources"
        )
    return result


def parse_memory(text: str) -> int:
    """Bytes from "512M", "16 GB" or a number of MiB. Raises ValueError."""
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        raise ValueError("expected a size such as 512M or 16G")
    return int(found[1]) * _UNITS[found[2].upper()]


def parse_time(text: str) -> int:
    """Seconds from "90m", "8h", "1-12:00:00", "12:00:00", "08:30" (hours and minutes), or a number
    of minutes. Raises ValueError."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 9:
        return int(text) * 60
    found = _TIME.fullmatch(text)
    if found is not None:
        return int(found[1]) * _TIME_UNITS[found[2].lower()]
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        raise ValueError("expected a time such as 90m, 8h or 1-12:00:00")
    days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _of_kernelspec(metadata: object) -> Resources:
    if metadata is None:
        return Resources()
    if not isinstance(metadata, dict):
        raise BadRequest("kernelspec: metadata.holdfast.resources must be an object")
    fields: dict[str, Any] = {}
    for name, value in metadata.items():
        said_by = f"kernelspec: metadata.holdfast.resources.{name}"
        if name == "labels" and isinstance(value, dict):
            fields[name] = {str(key): str(item) for key, item in value.items()}
        elif name in VARIABLES.values():
            fields[name] = _read(name, str(value), said_by=said_by)
        else:
            raise BadRequest(f"{said_by} is not known")
    return Resources(**fields)


def _read(name: str, text: str, *, said_by: str) -> int | str:
    try:
        match name:
            case "memory":
                value: int | str = parse_memory(text)
            case "time":
                value = parse_time(text)
            case "cpus" | "gpus":
                value = _count(text)
            case _:
                value = _name(text)
    except ValueError as error:
        raise BadRequest(f"{said_by} is {text[:64]!r}: {error}", reason="resources") from None
    if value == 0 and name != "gpus":
        raise BadRequest(f"{said_by} is {text[:64]!r}: at least 1", reason="resources")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 6:
        raise ValueError("expected a whole number")
    return int(text)


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError("expected a name")
    return text


def _check(name: str, value: int | str, limits: Limits, *, variable: str) -> None:
    """Raise BadRequest when ``value`` is beyond the administrator's limit."""
    allowed = {
        "partition": ("limits.partitions", limits.partitions),
        "account": ("limits.accounts", limits.accounts),
        "qos": ("limits.qos", limits.qos),
    }
    if name in allowed:
        key, names = allowed[name]
        if names and value not in names:
            choice = ", ".join(names)
            raise BadRequest(f"{variable}={value}: {key} allows {choice}", reason="resources")
        return
    written = getattr(limits, name)
    if written is None:
        return
    most = _read(name, str(written), said_by=f"limits.{name}") if written != 0 else 0
    if isinstance(value, int) and isinstance(most, int) and value > most:
        shown = f"{variable} asks for more than limits.{name} = {written} allows"
        raise BadRequest(shown, reason="resources")
