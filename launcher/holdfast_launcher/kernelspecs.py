"""The kernelspecs that this launcher offers, in Jupyter's REST model, and their files.

It knows jupyter_client's KernelSpecManager and must not know HTTP. The manager is imported on the
first use, in a worker thread: a restarted launcher answers before that third of a second. A scan
is repeated only when the modification time of a directory or a ``kernel.json`` changed.
Rejected: reading ``kernel.json`` ourselves (the manager leaves out specs whose provisioner is
missing, and the keeper asks the same manager).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast_launcher.errors import UnknownKernelspec

#: How long an answer may be behind the disk, in seconds.
_FRESH = 5.0
_MAX_RESOURCE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Catalog:
    """One scan. ``model`` is Jupyter's; ``digest`` changes when the model does."""

    model: dict[str, Any]
    directories: dict[str, Path]
    digest: str
    signature: tuple[tuple[str, int], ...] = field(repr=False)

    def metadata(self, name: str) -> dict[str, Any]:
        """``metadata.holdfast`` of a spec. Raises UnknownKernelspec."""
        entry = self.model["kernelspecs"].get(name)
        if entry is None:
            known = ", ".join(sorted(self.directories)) or "none"
            raise UnknownKernelspec(f"no kernelspec {name!r} on this launcher; there are: {known}")
        holdfast = entry["spec"].get("metadata", {}).get("holdfast", {})
        return holdfast if isinstance(holdfast, dict) else {}


class KernelspecCatalog:
    """Scans off the loop; concurrent callers share one scan."""

    def __init__(self, directories: tuple[str, ...], *, native_kernel: bool = True) -> None:
        self._configured = directories
        self._native = native_kernel
        self._lock = asyncio.Lock()
        self._catalog: Catalog | None = None
        self._checked = float("-inf")

    def __repr__(self) -> str:
        specs = "unread" if self._catalog is None else sorted(self._catalog.directories)
        return f"KernelspecCatalog({specs})"

    def directories(self) -> list[str]:
        """Where specs are searched, first one wins."""
        return list(self._configured) or _default_directories()

    @property
    def digest_nowait(self) -> str | None:
        """The digest of the last scan; None before the first."""
        return None if self._catalog is None else self._catalog.digest

    async def read(self) -> Catalog:
        """The catalog, at most ``_FRESH`` seconds behind the disk."""
        async with self._lock:
            if self._catalog is None or time.monotonic() - self._checked > _FRESH:
                self._catalog = await asyncio.to_thread(self._scan, self._catalog)
                self._checked = time.monotonic()
            return self._catalog

    async def resource(self, name: str, path: str) -> tuple[bytes, str]:
        """(content, MIME type) of a spec's file. Raises UnknownKernelspec.

        ``kernel.json`` is not served: its argv and env are the launcher's business. A path that
        leaves the directory, by dots or by a link, does not exist.
        """
        catalog = await self.read()
        directory = catalog.directories.get(name)
        if directory is None:
            raise UnknownKernelspec(f"no kernelspec {name!r} on this launcher")
        content = await asyncio.to_thread(_read_inside, directory, path)
        if content is None:
            raise UnknownKernelspec(f"kernelspec {name!r} has no file {path!r}")
        return content, mimetypes.guess_type(path)[0] or "application/octet-stream"

    def _scan(self, previous: Catalog | None) -> Catalog:
        directories = self.directories()
        signature = tuple(_signature(directories))
        if previous is not None and previous.signature == signature:
            return previous
        from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager

        manager = KernelSpecManager(kernel_dirs=directories, ensure_native_kernel=self._native)
        found = manager.get_all_specs()
        specs = {name: _model(name, entry) for name, entry in sorted(found.items())}
        default = NATIVE_KERNEL_NAME if NATIVE_KERNEL_NAME in specs else next(iter(specs), None)
        model = {"default": default, "kernelspecs": specs}
        text = json.dumps(model, sort_keys=True, separators=(",", ":"))
        return Catalog(
            model=model,
            directories={name: Path(entry["resource_dir"]) for name, entry in found.items()},
            digest=hashlib.sha256(text.encode()).hexdigest(),
            signature=signature,
        )


def _default_directories() -> list[str]:
    # KernelSpecManager's own default, without its import of IPython for one path.
    from jupyter_core.paths import jupyter_path

    ipython = os.environ.get("IPYTHONDIR") or os.path.join(os.path.expanduser("~"), ".ipython")
    return [*jupyter_path("kernels"), os.path.join(ipython, "kernels")]


def _signature(directories: list[str]) -> Iterator[tuple[str, int]]:
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            for item in (path, os.path.join(path, "kernel.json")):
                try:
                    yield item, os.stat(item).st_mtime_ns
                except OSError:
                    continue


def _model(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """One spec as jupyter_server's REST API shows it (kernelspecs handler)."""
    resources = {}
    directory = Path(entry["resource_dir"])
    try:
        files = sorted(directory.iterdir())
    except OSError:  # uninstalled at this moment, or not for us to list: it has no logo then
        files = []
    for path in files:
        key = path.stem if path.name.startswith("logo-") else path.name
        if path.name.startswith("logo-") or path.name in ("kernel.js", "kernel.css"):
            resources[key] = f"/kernelspecs/{name}/{path.name}"
    return {"name": name, "spec": entry["spec"], "resources": resources}


def _read_inside(directory: Path, path: str) -> bytes | None:
    root = directory.resolve()
    try:
        target = (root / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    if not target.is_relative_to(root) or target.name.lower() == "kernel.json":
        return None
    if not target.is_file() or target.stat().st_size > _MAX_RESOURCE:
        return None
    try:
        return target.read_bytes()
    except OSError:
        return None
