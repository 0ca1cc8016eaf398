"""How a record becomes bytes in the store and a record again: versioned JSON objects.

This module knows JSON and Python's types; it must not know which records exist, keys, or the
store. A record keeps the fields that it does not know in ``extra`` and writes them back, so that
an older proxy that rewrites a record during a rolling upgrade loses nothing of a newer one's.
Rejected: msgspec (this package is standard library only) and pickles (a store is not trusted).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from holdfast_protocol.errors import RecordError

_T = TypeVar("_T")
_R = TypeVar("_R", bound="Record")


class Fields:
    """One JSON object being read; what was not read remains in ``rest``.

    Every reader raises RecordError naming the field. A missing field is an error unless a
    default is given; a null one is the same as a missing one.
    """

    __slots__ = ("_document", "_what")

    def __init__(self, document: Mapping[str, Any], what: str) -> None:
        self._document = dict(document)
        self._what = what

    def __repr__(self) -> str:
        return f"<Fields of {self._what}: {', '.join(self._document)} not read yet>"

    @property
    def rest(self) -> dict[str, Any]:
        """What nobody has read yet."""
        return dict(self._document)

    def text(self, name: str) -> str:
        value = self._document.pop(name, None)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def text_or_none(self, name: str) -> str | None:
        return None if self._absent(name) else self.text(name)

    def integer(self, name: str, default: int | None = None) -> int:
        if default is not None and self._absent(name):
            return default
        value = self._document.pop(name, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "an integer that is not negative", value)
        return value

    def boolean(self, name: str, default: bool) -> bool:
        if self._absent(name):
            return default
        value = self._document.pop(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; an absent one is empty."""
        if self._absent(name):
            return {}
        value = self._document.pop(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return value

    def choice(self, name: str, make: Callable[[str], _T]) -> _T:
        """A word that ``make`` (an Enum) knows."""
        value = self.text(name)
        try:
            return make(value)
        except ValueError:
            raise self._wrong(name, "a known word", value) from None

    def inner(self, name: str) -> Fields | None:
        """A nested object, or None when absent."""
        if self._absent(name):
            return None
        return Fields(self.mapping(name), f"{self._what}, field {name!r}")

    def _absent(self, name: str) -> bool:
        if self._document.get(name) is None:
            self._document.pop(name, None)
            return True
        return False

    def _wrong(self, name: str, wanted: str, value: Any) -> RecordError:
        return RecordError(
            f"{self._what}: field {name!r} must be {wanted}, not {type(value).__name__}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all records. ``extra`` holds the fields that this version does not know."""

    #: Raised only when an older reader would misunderstand; new optional fields do not raise it.
    VERSION: ClassVar[int] = 1

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls: type[_R], source: Fields) -> _R:
        """Make the record from its fields. Raises RecordError."""
        raise NotImplementedError

    @classmethod
    def decode(cls: type[_R], data: bytes) -> _R:
        """Read bytes from the store. Raises RecordError, which names what is wrong."""
        return cls.read(document_fields(data, cls.__name__, cls.VERSION))

    def encode(self) -> bytes:
        """The bytes for the store: what was not understood first, so that we overrule it."""
        document = {**self.extra, "version": self.VERSION, **self.document()}
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    def document(self) -> dict[str, Any]:
        """This record's own fields as JSON values; None is left out."""
        values = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {
            name: _plain(value) for name, value in values if name != "extra" and value is not None
        }


def document_fields(data: bytes, what: str, version: int) -> Fields:
    """Parse one record's JSON and check its version. Raises RecordError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{what}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise RecordError(f"{what}: must be an object, not {type(document).__name__}")
    source = Fields(document, what)
    found = source.integer("version")
    if not 0 < found <= version:
        raise RecordError(
            f"{what}: field 'version' is {found}, and this program reads up to {version}: "
            "upgrade it before it joins this cluster"
        )
    return source


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {**value.extra, **value.document()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    enum_value = getattr(value, "value", None)
    return value if enum_value is None else enum_value
