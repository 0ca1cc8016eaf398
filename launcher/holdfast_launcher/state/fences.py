"""The highest fencing token per kernel that this launcher has acknowledged, and who was deleted.

It knows tokens and one small file per kernel; it must not know HTTP or processes.

Invariant: for each kernel id the acknowledged token never falls, not over a restart or a power
cut, because it is on the disk (fsync, rename, fsync of the directory) before ``acknowledge``
returns and so before any effect or answer that depends on it. A token outlives its kernel: what
woke up late must find the door shut.

Rejected: one file for all kernels (each claim would rewrite everybody's token) and a database.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast_launcher.errors import ConfigError, StaleToken
from holdfast_launcher.state.statefiles import make_private_directory, read_json, write_json
from holdfast_protocol.errors import InvalidState, RecordError
from holdfast_protocol.fencing import Acknowledged, Token


@dataclass(frozen=True, slots=True)
class Page:
    """What is kept of one kernel. ``buried``: nonce of the deleted incarnation ("" if it had
    none); ``buried_at``: when, in seconds of the epoch; None: not deleted."""

    fence: Token
    buried: str | None = None
    buried_at: float | None = None

    def document(self) -> dict[str, Any]:
        return {
            "fence": self.fence.as_list(),
            "buried": self.buried,
            "buried_at": self.buried_at,
        }


class FenceBook:
    """Thread-safe; its writing methods block on the disk, so call them off the event loop."""

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self._directory = directory
        self._lock = threading.Lock()
        self._pages: dict[str, Page] = {}
        for path in directory.glob("*.json"):
            self._pages[path.stem] = _page(path)

    def __repr__(self) -> str:
        return f"FenceBook({str(self._directory)!r}, kernels={len(self._pages)})"

    def page(self, kernel_id: str) -> Page | None:
        """What is known of a kernel; None when it was never named here."""
        return self._pages.get(kernel_id)

    def acknowledge(self, kernel_id: str, fence: Token) -> None:
        """Make ``fence`` the highest, on disk; equal is fine. Raises StaleToken when lower."""
        with self._lock:
            page = self._pages.get(kernel_id)
            if page is None:
                self._write(kernel_id, Page(fence))
                return
            self._refuse_lower(page, fence)
            if fence > page.fence:
                self._write(kernel_id, replace(page, fence=fence))

    def check(self, kernel_id: str, fence: Token) -> None:
        """Raise StaleToken when a higher one was acknowledged since."""
        page = self._pages.get(kernel_id)
        if page is not None:
            self._refuse_lower(page, fence)

    def bury(self, kernel_id: str, fence: Token, *, nonce: str | None, now: float) -> None:
        """Note that nothing of the kernel is left. A nonce that was buried never starts again."""
        with self._lock:
            page = self._pages.get(kernel_id)
            highest = fence if page is None else max(fence, page.fence)
            if nonce is None and page is not None and page.buried:
                return  # a repeated DELETE must not forget which incarnation it was
            self._write(kernel_id, Page(highest, buried=nonce or "", buried_at=now))

    def unbury(self, kernel_id: str) -> None:
        """A new incarnation of a deleted kernel id begins."""
        with self._lock:
            page = self._pages.get(kernel_id)
            if page is not None and page.buried is not None:
                self._write(kernel_id, Page(page.fence))

    def forget(self, *, before: float) -> int:
        """Remove the pages of kernels that were deleted before ``before``; answer how many."""
        with self._lock:
            old = [
                kernel_id
                for kernel_id, page in self._pages.items()
                if page.buried_at is not None and page.buried_at < before
            ]
            for kernel_id in old:
                del self._pages[kernel_id]
                self._path(kernel_id).unlink(missing_ok=True)
            return len(old)

    def _write(self, kernel_id: str, page: Page) -> None:
        # Disk first: if the write fails, memory must not claim what a restart would not know.
        write_json(self._path(kernel_id), page.document(), durable=True)
        self._pages[kernel_id] = page

    def _path(self, kernel_id: str) -> Path:
        return self._directory / f"{kernel_id}.json"

    @staticmethod
    def _refuse_lower(page: Page, fence: Token) -> None:
        try:
            Acknowledged(page.fence).offer(fence)
        except InvalidState:
            raise StaleToken(
                f"token {fence} is stale: {page.fence} was acknowledged for this kernel",
                highest=page.fence,
            ) from None


def _page(path: Path) -> Page:
    document = read_json(path) or {}
    try:
        fence = Token.from_list(document.get("fence"))
    except RecordError as error:
        # To go on without it would let a proxy act whose ownership is over.
        raise ConfigError(
            f"{path} is damaged and holds the fence of a kernel: restore it, or remove it once "
            "no proxy from before is running"
        ) from error
    return Page(fence, document.get("buried"), document.get("buried_at"))
