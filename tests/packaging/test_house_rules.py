"""What CONTRIBUTING promises about the code and a machine can count."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = [
    ROOT / "protocol" / "holdfast_protocol",
    ROOT / "proxy" / "holdfast_proxy",
    ROOT / "launcher" / "holdfast_launcher",
    ROOT / "client_shim" / "holdfast_client_shim",
]
MODULES = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and its signature."""
    body = function.body
    first = body[1] if ast.get_docstring(function) is not None and len(body) > 1 else body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def test_modules_are_small_described_and_named_by_a_noun() -> None:
    bad = []
    for file in MODULES:
        text = file.read_text()
        if len(text.splitlines()) >= 400:
            bad.append(f"{file.relative_to(ROOT)}: {len(text.splitlines())} lines")
        if not ast.get_docstring(ast.parse(text)):
            bad.append(f"{file.relative_to(ROOT)}: no module docstring")
        if file.stem in {"utils", "util", "helpers", "common", "misc"}:
            bad.append(f"{file.relative_to(ROOT)}: named by no noun")
    assert not bad, "\n".join(bad)


def test_functions_are_short() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{function.lineno} {function.name}: {code_lines(function)} lines"
        for file in MODULES
        for function in functions(ast.parse(file.read_text()))
        if code_lines(function) > 40
    ]
    assert not long, "\n".join(long)


def test_every_folder_with_code_is_a_package() -> None:
    missing = {
        str(file.parent.relative_to(ROOT))
        for file in MODULES
        if not (file.parent / "__init__.py").exists()
    }
    assert not missing, missing


def test_the_lock_pins_every_requirement_and_satisfies_it() -> None:
    lines = (ROOT / "requirements" / "dev.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [Requirement(text) for group in extras.values() for text in group]
    wanted += [Requirement(text) for text in PROJECT["dependency-groups"]["dev"]]
    for requirement in wanted:
        if requirement.name == "holdfast":
            continue
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in the lock: make lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}: {version}"
        )


def test_the_lock_installs_on_the_oldest_python_that_we_promise() -> None:
    """Debian 12 has 3.11.2, and some packages ask for a later patch release."""
    wrong = []
    for line in (ROOT / "requirements" / "dev.lock").read_text().splitlines():
        if line.startswith("#"):
            continue
        needs = metadata(line.split("==")[0]).get("Requires-Python") or ""
        if not all(SpecifierSet(needs).contains(python) for python in ("3.11.2", "3.13.0")):
            wrong.append(f"{line} requires Python {needs}")
    assert not wrong, "\n".join(wrong)


def test_the_lock_names_no_host_and_no_path() -> None:
    text = (ROOT / "requirements" / "dev.lock").read_text()
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line), line


def test_the_extra_all_has_every_other_extra_with_lab_and_a_kernel() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    everything = [Requirement(text) for text in extras["all"]]
    assert everything[0].extras == set(extras) - {"all"}
    assert {"jupyterlab", "ipykernel"} <= {requirement.name for requirement in everything}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_package_is_typed_and_in_the_wheel(package: Path) -> None:
    assert (package / "py.typed").exists()
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert str(package.relative_to(ROOT)) in wheel
