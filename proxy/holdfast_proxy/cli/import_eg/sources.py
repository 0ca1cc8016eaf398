"""Reads what an Enterprise Gateway is told, without running any of it.

A configuration file of traitlets is a Python program. It is parsed here, never executed: what
assigns a literal is understood (``c.Class.option = …``, ``.append`` and ``.extend`` of one), and
every other statement is reported with its line, for a person to look at.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .findings import Fate, Finding

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A configuration file of more bytes is surely the wrong file.
_LARGEST: Final = 1024 * 1024


class SourceError(Exception):
    """A file cannot be read at all; the message names it."""


@dataclass(slots=True)
class FileConfig:
    """What a configuration file sets: ``values[class][option]``, and what was not understood."""

    name: str
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def set(self, section: str, option: str, value: Any) -> None:
        self.values.setdefault(section, {})[option] = value


def read_text(path: Path) -> str:
    """Raises SourceError."""
    try:
        if path.stat().st_size > _LARGEST:
            raise SourceError(f"{path} is too large for a configuration")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def read_env_file(path: Path) -> dict[str, str]:
    """``NAME=value`` lines, as systemd, Docker and shells have them; ``export`` and matching quotes
    are left out, nothing is expanded. Raises SourceError with the line that is none."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise SourceError(f"{path}, line {number}: not NAME=value")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def read_config_file(path: Path) -> FileConfig:
    """A ``.json`` or ``.py`` configuration file of traitlets. Raises SourceError."""
    text = read_text(path)
    config = FileConfig(path.name)
    if path.suffix == ".json":
        _take_json(config, text, path)
    else:
        _take_python(config, text, path)
    return config


def _take_json(config: FileConfig, text: str, path: Path) -> None:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SourceError(f"{path} is not a configuration of traitlets")
    for section, options in document.items():
        if isinstance(options, dict):
            config.values.setdefault(section, {}).update(options)


def _take_python(config: FileConfig, text: str, path: Path) -> None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not Python: {error}") from error
    for statement in tree.body:
        if not _is_idle(statement) and not _take_statement(config, statement):
            where = f"{config.name}, line {statement.lineno}"
            said = "it is more than an option and a plain value; look at what it sets"
            config.findings.append(Finding(where, Fate.NOT_READ, said))


def _is_idle(statement: ast.stmt) -> bool:
    """What sets nothing: a docstring, ``c = get_config()``, an import."""
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass)):
        return True
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and statement.value.func.id in ("get_config", "Config")
    )


def _take_statement(config: FileConfig, statement: ast.stmt) -> bool:
    """Whether the statement was understood."""
    try:
        if isinstance(statement, ast.Assign):
            value = ast.literal_eval(statement.value)
            places = list(map(_place, statement.targets))
            for section, option in places:
                config.set(section, option, value)
            return True
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            return _take_call(config, statement.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return False


def _take_call(config: FileConfig, call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or len(call.args) != 1 or call.keywords:
        return False
    section, option = _place(call.func.value)
    value = ast.literal_eval(call.args[0])
    before = list(config.values.get(section, {}).get(option, []))
    if call.func.attr == "append":
        config.set(section, option, [*before, value])
    elif call.func.attr in ("extend", "update"):
        config.set(section, option, before + list(value))
    else:
        return False
    return True


def _place(target: ast.expr) -> tuple[str, str]:
    """``c.Class.option``. Raises ValueError for anything else."""
    parts = list(_attributes(target))
    if len(parts) != 3 or parts[0] != "c":
        raise ValueError("not c.Class.option")
    return parts[1], parts[2]


def _attributes(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield from _attributes(node.value)
        yield node.attr
    elif isinstance(node, ast.Name):
        yield node.id
