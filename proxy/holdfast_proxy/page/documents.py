"""The page's files and the headers under which they go out.

Read once, when the application is built, so that a missing file is found at start and a request
touches no disk. Only what is listed in ``_TYPES`` is served: a path of a request never becomes a
path on disk. The policy allows our own files and nothing else: no inline script or style, no
foreign host, no frame around the page. Must not know who may see them.
"""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Final

#: Everything the page may load comes from the proxy that served it.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
#: ``same-origin``, not ``no-referrer``: with that, a browser posts the form with Origin "null".
SECURITY: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it goes out. ``tag`` is its ETag."""

    content: bytes
    content_type: str
    tag: str


class Documents:
    """The two HTML pages, and the files that they name."""

    def __init__(self, *, cluster: str, base: str) -> None:
        folder = files(__package__).joinpath("static")
        self._common = {"cluster": html.escape(cluster), "base": html.escape(base)}
        self._page = Template(folder.joinpath("cluster.html").read_text("utf-8"))
        self._form = Template(folder.joinpath("sign-in.html").read_text("utf-8"))
        self._assets = {
            entry.name: _asset(entry.read_bytes(), content_type)
            for entry in folder.iterdir()
            for suffix, content_type in _TYPES.items()
            if entry.name.endswith(suffix)
        }

    def __repr__(self) -> str:
        return f"<Documents: {len(self._assets)} files>"

    def page(self, *, user: str, signed_in: bool) -> str:
        """The cluster page; ``signed_in``: by a cookie, so that there is something to leave."""
        return self._page.substitute(
            self._common,
            user=html.escape(user),
            sign_out="" if signed_in else "hidden",
        )

    def form(self, *, message: str = "") -> str:
        """The sign-in form, with a sentence about what went wrong."""
        return self._form.substitute(
            self._common,
            message=html.escape(message),
            silent="" if message else "hidden",
            invalid="true" if message else "false",
        )

    def asset(self, name: str) -> Asset | None:
        """A file that the page names, or None."""
        return self._assets.get(name)


def _asset(content: bytes, content_type: str) -> Asset:
    return Asset(content, content_type, hashlib.sha256(content).hexdigest()[:32])
