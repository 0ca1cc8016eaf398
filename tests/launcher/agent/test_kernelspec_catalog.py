"""Kernelspecs: the model, its digest, when the disk is read again, which files are served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_launcher import kernelspecs
from holdfast_launcher.errors import UnknownKernelspec
from holdfast_launcher.kernelspecs import KernelspecCatalog


def add_spec(base: Path, name: str, **more: object) -> Path:
    directory = base / name
    directory.mkdir(parents=True)
    spec = {"argv": ["x", "{connection_file}"], "display_name": name, "language": "x", **more}
    (directory / "kernel.json").write_text(json.dumps(spec))
    return directory


@pytest.fixture(autouse=True)
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is fresh enough to be given again without a look at the disk."""
    monkeypatch.setattr(kernelspecs, "_FRESH", -1.0)


async def test_model_default_and_resources(tmp_path: Path) -> None:
    add_spec(tmp_path, "Odd", metadata={"holdfast": {"transport": "tcp"}})
    catalog = KernelspecCatalog((str(tmp_path),))
    read = await catalog.read()
    assert read.model["default"] == "python3", "the native one is ensured"
    assert set(read.model["kernelspecs"]) == {"odd", "python3"}
    assert read.metadata("odd") == {"transport": "tcp"}
    with pytest.raises(UnknownKernelspec, match="there are: odd, python3"):
        read.metadata("none")


async def test_without_the_native_kernel(tmp_path: Path) -> None:
    add_spec(tmp_path, "odd")
    read = await KernelspecCatalog((str(tmp_path),), native_kernel=False).read()
    assert (read.model["default"], list(read.model["kernelspecs"])) == ("odd", ["odd"])


async def test_scanned_again_only_after_a_change(tmp_path: Path) -> None:
    directory = add_spec(tmp_path, "odd")
    catalog = KernelspecCatalog((str(tmp_path),))
    first = await catalog.read()
    assert await catalog.read() is first
    add_spec(tmp_path, "new")
    second = await catalog.read()
    assert second.digest != first.digest
    (directory / "kernel.json").unlink()
    assert set((await catalog.read()).directories) == {"new", "python3"}


async def test_a_spec_that_vanishes_while_it_is_read_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats ask for the catalog: its failure would end the launcher."""
    directory = add_spec(tmp_path, "odd")
    found = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == directory:
            raise FileNotFoundError(path)
        return found(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    read = await KernelspecCatalog((str(tmp_path),)).read()
    assert read.model["kernelspecs"]["odd"]["resources"] == {}


async def test_one_damaged_spec_hides_no_other(tmp_path: Path) -> None:
    add_spec(tmp_path, "good")
    (add_spec(tmp_path, "bad") / "kernel.json").write_text("{")
    read = await KernelspecCatalog((str(tmp_path),)).read()
    assert set(read.model["kernelspecs"]) == {"good", "python3"}


async def test_files_inside_only_and_no_kernel_json(tmp_path: Path) -> None:
    directory = add_spec(tmp_path / "specs", "odd")
    (directory / "logo-64x64.png").write_bytes(b"png")
    (directory / "sub").mkdir()
    (directory / "sub" / "x.js").write_bytes(b"js")
    (tmp_path / "secret").write_text("s")
    (directory / "escape.png").symlink_to(tmp_path / "secret")
    (directory / "again.png").symlink_to("kernel.json")
    catalog = KernelspecCatalog((str(tmp_path / "specs"),))
    assert await catalog.resource("odd", "logo-64x64.png") == (b"png", "image/png")
    assert (await catalog.resource("odd", "sub/x.js"))[0] == b"js"
    for path in (
        *("kernel.json", "KERNEL.JSON", "sub/../kernel.json", "../../secret", "escape.png"),
        *("again.png", "sub", "", "none", "/etc/passwd", "a\0b", str(tmp_path / "secret")),
    ):
        with pytest.raises(UnknownKernelspec):
            await catalog.resource("odd", path)
    with pytest.raises(UnknownKernelspec):
        await catalog.resource("..", "secret")
