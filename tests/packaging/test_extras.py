"""The wheel as pip installs it: its files, and each extra imported in an environment of its own.

Takes minutes and a package registry: `make extras`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

#: Run in the bare environment. Imports every module of one package, then says which of the
#: forbidden modules are installed and which were imported.
IMPORT_ALL = """
import importlib, importlib.util, json, pkgutil, sys
package, forbidden = sys.argv[1], sys.argv[2:]
top = importlib.import_module(package)
names = [package]
for module in pkgutil.walk_packages(top.__path__, package + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        names.append(module.name)
third_party = sorted({
    name.partition(".")[0] for name, module in sys.modules.items()
    if "site-packages" in (getattr(module, "__file__", None) or "")
})
print(json.dumps({
    "modules": names,
    "installed": [name for name in forbidden if importlib.util.find_spec(name.partition(".")[0])],
    "imported": [name for name in forbidden if name in sys.modules],
    "third_party": third_party,
}))
"""

#: extra → its package, what must not even be installed, what must not be imported.
BARE: dict[str, tuple[str, list[str], list[str]]] = {
    "": (
        "holdfast_protocol",
        ["aiohttp", "msgspec", "zmq", "jupyter_client", "grpc", "etcd3", "tornado", "tenacity"],
        ["asyncio", "socket"],
    ),
    "proxy": (
        "holdfast_proxy",
        ["jupyter_server", "jupyter_client", "zmq", "tornado", "ipykernel"],
        ["holdfast_launcher", "holdfast_client_shim"],
    ),
    "launcher": (
        "holdfast_launcher",
        ["grpc", "etcd3", "jupyter_server", "google"],
        ["holdfast_proxy", "holdfast_client_shim"],
    ),
    "shim": (
        "holdfast_client_shim",
        ["aiohttp", "grpc", "etcd3", "msgspec", "uvloop"],
        ["holdfast_proxy", "holdfast_launcher"],
    ),
}


@pytest.fixture(scope="module")
def python_with_pip() -> list[str]:
    """A pip that installs into other environments; the test environment has none of its own."""
    for python in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        command = [python, "-m", "pip", "--disable-pip-version-check", "-qq"]
        if (
            subprocess.run([*command, "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return command
    pytest.fail("neither the environment nor its base interpreter has pip")


def run(command: list[str]) -> str:
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd="/"
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout[-2000:]}{result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, python_with_pip: list[str]) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    run([*python_with_pip, "wheel", "--no-deps", "--wheel-dir", str(target), str(ROOT)])
    (built,) = target.glob("holdfast-*.whl")
    return built


def test_the_wheel_enables_the_shim_and_brings_every_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    data = [name for name in names if name.endswith("jupyter_server_config.d/holdfast.json")]
    assert len(data) == 1
    assert "/data/etc/jupyter/" in data[0]
    enabled = json.loads(zipfile.ZipFile(wheel).read(data[0]))
    assert enabled["ServerApp"]["jpserver_extensions"] == {"holdfast_client_shim": True}
    for package, _, _ in BARE.values():
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.parametrize("extra", BARE, ids=lambda extra: extra or "none")
def test_an_extra_brings_what_its_package_imports_and_nothing_of_the_others(
    extra: str, wheel: Path, tmp_path: Path, python_with_pip: list[str]
) -> None:
    package, absent, unused = BARE[extra]
    environment = tmp_path / "bare"
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    python = str(environment / "bin" / "python")
    wanted = f"holdfast[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    lock = str(ROOT / "requirements" / "dev.lock")
    run([*python_with_pip, "--python", python, "install", "--constraint", lock, wanted])
    seen = json.loads(run([python, "-c", IMPORT_ALL, package, *absent, *unused]))
    assert len(seen["modules"]) > 1
    assert [name for name in absent if name in seen["installed"]] == []
    assert [name for name in unused if name in seen["imported"]] == []
    if not extra:
        assert seen["third_party"] == [package]
    if extra == "proxy":
        assert "holdfast, version" in run([str(environment / "bin" / "holdfast"), "--version"])
    if extra == "shim":
        assert (environment / "etc/jupyter/jupyter_server_config.d/holdfast.json").exists()
