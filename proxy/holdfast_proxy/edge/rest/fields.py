"""The fields of a request's JSON body, read with errors that name them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import BadRequest

#: Characters of a path, as file systems have them.
MAX_PATH: Final = 4096
#: Characters of a name.
MAX_NAME: Final = 256


def text(
    body: Mapping[str, Any], name: str, *, most: int, what: str, empty: bool = True
) -> str | None:
    """A string of at most ``most`` characters, or None when it is absent or null.

    What no file system and no store can hold (NUL, half of a surrogate pair) is refused here.
    Raises BadRequest: ``name`` must be ``what``.
    """
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most or "\0" in value or not (value or empty):
        raise BadRequest(f"{name} must be {what}, of at most {most} characters")
    if not _is_unicode(value):
        raise BadRequest(f"{name} is not Unicode: it has half of a surrogate pair")
    return value


def table(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object, empty when it is absent or null. Raises BadRequest."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
