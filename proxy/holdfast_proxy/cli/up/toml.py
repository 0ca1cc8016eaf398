"""Writing TOML (v1.0.0): the few value types that our configuration files hold.

The standard library reads TOML and does not write it; two of our own files do not make a
dependency. Strings are escaped by JSON's rules, which TOML's basic strings contain, except for
DEL, which JSON leaves raw and TOML forbids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Scalar = str | int | float | bool
Value = Scalar | Sequence[Scalar] | Mapping[str, "Scalar | Sequence[Scalar]"]


def dump(table: Mapping[str, Value]) -> str:
    """The TOML text of ``table``; nested mappings become tables after the plain keys."""
    plain = [
        f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)
    ]
    nested = [
        f"\n[{key}]\n{dump(value)}" for key, value in table.items() if isinstance(value, Mapping)
    ]
    return "\n".join([*plain, *nested]) + "\n"


def _value(value: Scalar | Sequence[Scalar]) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return "[" + ", ".join(_value(item) for item in value) + "]"
