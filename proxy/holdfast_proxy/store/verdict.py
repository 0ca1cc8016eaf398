"""What a gRPC status from etcd means for a caller: the decision, apart from the calling.

Pure functions over (code, details). The texts are etcd's, from ``api/v3rpc/rpctypes/error.go``;
they are part of its API, as its own client compares them too.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import grpc


class Effect(Enum):
    """What a call does, and so what may be done when its answer is missing."""

    READ = "read"  #: nothing; retry freely
    IDEMPOTENT = "idempotent"  #: twice is as good as once (lease calls); retry
    ONCE = "once"  #: a transaction that writes; never again unless surely not applied


class Verdict(Enum):
    NOT_APPLIED = "not applied"  #: surely without effect; another endpoint or moment may do
    AMBIGUOUS = "ambiguous"  #: it may have been applied, or may yet be
    LOGIN_EXPIRED = "login expired"  #: surely without effect; authenticate again
    LEASE_NOT_FOUND = "lease not found"
    LEASE_EXISTS = "lease exists"
    AUTH_REFUSED = "authentication refused"
    REJECTED = "rejected"  #: an answer: no


#: Refused before anything was proposed to the cluster (`v3rpc/interceptor.go`, `v3_server.go`),
#: or never sent at all (gRPC core: no connection).
_NOT_APPLIED: Final = (
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
    "etcdserver: not leader",
    "not a primary lessor",
    "failed to connect to all addresses",
    "name resolution failure",
    "DNS resolution failed",
)
#: "auth revision is old" is found when the entry is applied, which then changes nothing.
_LOGIN_EXPIRED: Final = (
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
)
_AUTH_REFUSED: Final = (
    "etcdserver: authentication failed",
    "etcdserver: authentication is not enabled",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
)
#: Codes that are an answer of the server, whatever the text.
_ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def judge(code: grpc.StatusCode, details: str) -> Verdict:
    """What a failed call means.

    Invariant: `NOT_APPLIED` and `LOGIN_EXPIRED` only for statuses that etcd or gRPC give before
    a proposal reaches the log, or for one that fails on being applied. Whatever is not known to
    be safe is `AMBIGUOUS`, so a new etcd text can cost a retry but never a double write.
    """
    if any(text in details for text in _NOT_APPLIED):
        return Verdict.NOT_APPLIED
    if any(text in details for text in _LOGIN_EXPIRED):
        return Verdict.LOGIN_EXPIRED
    if any(text in details for text in _AUTH_REFUSED):
        return Verdict.AUTH_REFUSED
    if "requested lease not found" in details:
        return Verdict.LEASE_NOT_FOUND
    if "lease already exists" in details:
        return Verdict.LEASE_EXISTS
    return Verdict.REJECTED if code in _ANSWERS else Verdict.AMBIGUOUS


#: DESIGN section 4: the first releases with the data-inconsistency and lease fixes that we need.
_SOUND: Final = {(3, 5): 33, (3, 6): 14}
_CORRUPTING: Final = ((3, 5, 0), (3, 5, 2))


def version_warning(version: str) -> str | None:
    """A sentence for the operator when this etcd is known to be unsound, else None."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return f"etcd calls itself {version!r}, which says nothing about its soundness"
    major, minor, patch = (int(part) for part in match.groups())
    if _CORRUPTING[0] <= (major, minor, patch) <= _CORRUPTING[1]:
        return (
            f"etcd {version} can corrupt its data when it is killed under load "
            "(3.5.0 to 3.5.2); good for trying out and for tests, not for production"
        )
    least = _SOUND.get((major, minor))
    if (major, minor) < min(_SOUND) or (least is not None and patch < least):
        return f"etcd {version} lacks fixes that Holdfast relies on; run 3.5.33, 3.6.14 or later"
    return None
