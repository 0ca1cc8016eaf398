"""The shim with the oldest jupyter_server that it promises: its tests, in a bare environment.

The wheel is built, installed as a user would, and what is tested with real servers elsewhere is
run again there. Takes minutes and a package registry: `make shim-oldest`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
OLDEST = ROOT / "requirements" / "shim-oldest.txt"
TOOLS = ["aiohttp", "psutil", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis"]
TESTS = ["test_shim_hook.py", "test_server_memory.py", "test_shim_server.py"]


def run(command: list[str], *, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=1200, check=False, cwd=ROOT, env=env
    )
    said = f"{result.stdout[-6000:]}{result.stderr[-4000:]}"
    assert result.returncode == 0, f"{' '.join(command)}:\n{said}"
    return result.stdout


def pins(path: Path) -> dict[str, str]:
    """name → line, of a file of exact versions."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return {line.partition("==")[0].lower(): line for line in lines if "==" in line}


def pip() -> list[str]:
    """A pip that installs into other environments; the test environment has none of its own."""
    for python in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        command = [python, "-m", "pip", "--disable-pip-version-check", "-qq"]
        probe = subprocess.run([*command, "--version"], capture_output=True, check=False)
        if probe.returncode == 0:
            return command
    pytest.fail("neither the environment nor its base interpreter has pip")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment with the wheel and the oldest jupyter_server; its interpreter."""
    folder = tmp_path_factory.mktemp("oldest")
    run([*pip(), "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("holdfast-*.whl")
    constraints = folder / "constraints.txt"
    chosen = pins(ROOT / "requirements" / "dev.lock") | pins(OLDEST)
    constraints.write_text("".join(f"{line}\n" for line in chosen.values()))
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    interpreter = str(folder / "venv" / "bin" / "python")
    wanted = [f"holdfast[shim] @ {wheel.as_uri()}", *pins(OLDEST).values(), *TOOLS]
    install = [*pip(), "--python", interpreter, "install", "--constraint", str(constraints)]
    run([*install, *wanted])
    return interpreter


def test_the_promise_is_the_version_that_is_tested() -> None:
    version = pins(OLDEST)["jupyter_server"].partition("==")[2]
    required = next(
        line for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith("shim = ")
    )  # fmt: skip
    assert f'"jupyter_server>={version.removesuffix(".0")}"' in required


def test_the_shims_tests_with_real_servers(python: str, tmp_path: Path) -> None:
    seen = run([python, "-c", "import jupyter_server as j; print(j.__version__)"])
    assert seen.strip() == pins(OLDEST)["jupyter_server"].partition("==")[2]
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_SESSION_MARK"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp"]
    files = [str(ROOT / "tests" / "client_shim" / name) for name in TESTS]
    said = run([*command, str(tmp_path / "inner"), *files], env=env)
    assert " passed" in said
    assert "skipped" not in said
