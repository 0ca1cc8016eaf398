"""docs/reference/configuration.md says every key, and every default as it is."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast_launcher.config import Capacity, LauncherConfig, LogConfig
from holdfast_proxy.config import EtcdConfig, ProxyConfig, UserConfig

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text()
#: Struct → the heading or line under which its table stands.
TABLES = {
    ProxyConfig: "## Proxy",
    UserConfig: "`[[users]]`:",
    EtcdConfig: "`[etcd]`:",
    LauncherConfig: "## Launcher",
    Capacity: "`[capacity]`:",
    LogConfig: "`[log]`:",
}


def documented(heading: str) -> dict[str, str]:
    """key → default cell, of the first table below ``heading``."""
    lines = TEXT.split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|---"))
    rows: dict[str, str] = {}
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for key in re.findall(r"`(\w+)`", cells[0]):
            rows[key] = cells[1]
    return rows


def shown(value: Any) -> str:
    """A default as the tables write it."""
    if isinstance(value, Enum):
        value = value.value
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


@pytest.mark.parametrize("struct", TABLES, ids=lambda struct: struct.__name__)
def test_every_key_is_documented_with_its_default(struct: type[msgspec.Struct]) -> None:
    rows = documented(TABLES[struct])
    fields = msgspec.structs.fields(struct)
    # A nested table is documented as a table of its own.
    plain = [
        field
        for field in fields
        if not (isinstance(field.type, type) and issubclass(field.type, msgspec.Struct))
    ]
    assert set(rows) == {field.name for field in plain}
    for field in plain:
        if field.default not in {None, msgspec.NODEFAULT} and field.default != ():
            assert rows[field.name] == shown(field.default), field.name
        elif field.required:
            assert rows[field.name] == "required", field.name


def test_links_between_documents_lead_somewhere() -> None:
    root = Path(__file__).parents[2]
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken, broken


def test_every_test_that_the_promises_name_exists() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "design" / "promises.md").read_text()
    names = set(re.findall(r"::(test_\w+)", text))
    files = [root / "tests" / file for file in re.findall(r"`tests/([\w/]+\.py)", text)]
    files += [root / "tests" / "e2e" / file for file in re.findall(r"`(test_\w+\.py)", text)]
    defined = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert len(names) > 20
    assert names <= defined, names - defined
