"""`cluster.json`: what runs where, for people, scripts and tests.

``{"token", "etcd": {"pid", "url"}, "proxies": [{"id", "pid", "url"}], "launchers": [...],
"lab": {"pid", "url", "token"} or null}``. Written when everything is ready, and again, atomically,
whenever a restarted child is ready, so that a reader never sees half a tree or a pid that is not
ready yet. It holds the token: 0600, in a 0700 directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Member:
    """One running process of the tree."""

    id: str
    pid: int
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """The whole tree at one moment."""

    token: str
    etcd: Member
    proxies: Sequence[Member]
    launchers: Sequence[Member]
    lab: Member | None
    lab_token: str

    def __repr__(self) -> str:
        return f"<ClusterFile etcd={self.etcd} proxies={list(self.proxies)} lab={self.lab}>"

    def to_json(self) -> dict[str, Any]:
        lab = None
        if self.lab is not None:
            lab = {"pid": self.lab.pid, "url": self.lab.url, "token": self.lab_token}
        return {
            "token": self.token,
            "etcd": {"pid": self.etcd.pid, "url": self.etcd.url},
            "proxies": [_member(member) for member in self.proxies],
            "launchers": [_member(member) for member in self.launchers],
            "lab": lab,
        }


def _member(member: Member) -> dict[str, Any]:
    return {"id": member.id, "pid": member.pid, "url": member.url}
