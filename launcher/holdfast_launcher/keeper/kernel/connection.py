"""Where a kernel's sockets are and with which key it signs: one value, read from its file.

It knows Jupyter's connection file format ("Connection files" in the jupyter_client docs) and
nothing of sockets or processes. Rejected: keeping jupyter_client's manager as the source of this
truth, because a keeper that adopts a living kernel has the file and no manager.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from holdfast_launcher.network.tls import is_loopback

CHANNELS: Final = ("shell", "iopub", "stdin", "control", "hb")


@dataclass(frozen=True, slots=True)
class Connection:
    """Endpoints and secrets of one kernel process. ``ip`` is a path prefix when ``ipc``."""

    transport: str
    ip: str
    ports: Mapping[str, int]
    scheme: str
    key: bytes = field(repr=False)
    curve_public: bytes | None = field(default=None, repr=False)
    curve_secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Connection:
        """From the dictionary in a connection file. Raises KeyError naming what is missing."""
        return cls(
            transport=str(info["transport"]),
            ip=str(info["ip"]),
            ports={name: int(info[f"{name}_port"]) for name in CHANNELS},
            scheme=str(info.get("signature_scheme") or "hmac-sha256"),
            key=_bytes(info.get("key")) or b"",
            curve_public=_bytes(info.get("curve_publickey")),
            curve_secret=_bytes(info.get("curve_secretkey")),
        )

    @classmethod
    def from_file(cls, path: Path) -> Connection:
        """Read a connection file. Raises OSError, ValueError or KeyError."""
        return cls.from_info(json.loads(path.read_bytes()))

    def url(self, channel: str) -> str:
        """The ZMQ endpoint of ``channel``."""
        separator = "-" if self.transport == "ipc" else ":"
        return f"{self.transport}://{self.ip}{separator}{self.ports[channel]}"

    @property
    def is_private(self) -> bool:
        """Whether nobody else on a network can read along: ipc, loopback, or CURVE."""
        if self.transport == "ipc" or self.curve_public is not None:
            return True
        return is_loopback(self.ip)


def _bytes(value: object) -> bytes | None:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else None
