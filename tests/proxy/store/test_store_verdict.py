"""What etcd's and gRPC's statuses mean, which decides whether a write may be sent again."""

from __future__ import annotations

import grpc
import pytest

from holdfast_proxy.store.verdict import Verdict, judge, version_warning

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        # never sent, or refused before a proposal
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: x", "NOT_APPLIED"),
        (Code.UNAVAILABLE, "etcdserver: no leader", "NOT_APPLIED"),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", "NOT_APPLIED"),
        (Code.UNKNOWN, "not a primary lessor", "NOT_APPLIED"),
        # perhaps applied
        (Code.UNAVAILABLE, "Socket closed", "AMBIGUOUS"),
        (Code.UNAVAILABLE, "etcdserver: request timed out", "AMBIGUOUS"),
        (
            Code.UNAVAILABLE,
            "etcdserver: request timed out, possibly due to previous leader failure",
            "AMBIGUOUS",
        ),
        (Code.UNAVAILABLE, "etcdserver: leader changed", "AMBIGUOUS"),
        (Code.UNAVAILABLE, "etcdserver: server stopped", "AMBIGUOUS"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", "AMBIGUOUS"),
        (Code.CANCELLED, "", "AMBIGUOUS"),
        (Code.INTERNAL, "a text that etcd has not yet", "AMBIGUOUS"),
        (Code.UNKNOWN, "", "AMBIGUOUS"),
        # answers
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", "LOGIN_EXPIRED"),
        (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", "LOGIN_EXPIRED"),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            "AUTH_REFUSED",
        ),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", "AUTH_REFUSED"),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", "LEASE_NOT_FOUND"),
        (Code.FAILED_PRECONDITION, "etcdserver: lease already exists", "LEASE_EXISTS"),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", "REJECTED"),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", "REJECTED"),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", "REJECTED"),
    ],
)
def test_judge(code: Code, details: str, verdict: str) -> None:
    assert judge(code, details) is Verdict[verdict]


@pytest.mark.parametrize("code", list(Code))
def test_no_bare_code_is_taken_for_not_applied(code: Code) -> None:
    assert judge(code, "") in (Verdict.AMBIGUOUS, Verdict.REJECTED)


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("3.5.0", "corrupt"),
        ("3.5.2", "corrupt"),
        ("3.5.3", "lacks"),
        ("3.5.32", "lacks"),
        ("3.6.0", "lacks"),
        ("3.6.13", "lacks"),
        ("3.4.40", "lacks"),
        ("2.3.8", "lacks"),
        ("later", "nothing"),
        ("", "nothing"),
    ],
)
def test_unsound_versions_are_warned_of(version: str, word: str) -> None:
    warning = version_warning(version)
    assert warning is not None
    assert word in warning


@pytest.mark.parametrize("version", ["3.5.33", "3.5.40", "3.6.14", "3.7.0", "4.0.0", "3.6.14-rc.1"])
def test_sound_versions_are_not(version: str) -> None:
    assert version_warning(version) is None
