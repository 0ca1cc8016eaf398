"""What can go wrong between a caller and the store, as types, listed once.

Three kinds, kept apart: the caller's own misuse (``Misuse``), an answer that says no
(``Rejected`` and below it, ``LeaseLost``, ``Compacted``) and no answer (``NoAnswer``). The last
has two forms that a writer must never mix up: ``Unreachable``, surely not applied, and
``Unknown``, perhaps applied.

This module must not know gRPC; `etcd.py` translates.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything that a `Store` raises on purpose."""


class Misuse(StoreError):
    """The caller broke the contract (an empty compare list, two puts of one key, a closed
    store, a request that no etcd would take). Nothing was sent."""


class NoAnswer(StoreError):
    """No answer within the deadline. Always one of the two below."""


class Unreachable(NoAnswer):
    """No answer, and the call has surely had no effect. Retrying it is safe."""


class Unknown(NoAnswer):
    """No answer, and the call may or may not have been applied, now or in a moment.

    Only a later linearizable read tells, and it tells only what happened before it. Never
    answered by blind retry: read, then compare again.
    """


class Rejected(StoreError):
    """The store answered that it will not; nothing was applied (no space, no permission)."""


class AuthenticationFailed(Rejected):
    """User, password or certificate is not accepted."""


class LeaseLost(StoreError):
    """The lease expired, was revoked, or never was. Its keys are gone or about to be."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease:x} does not exist (expired or revoked)")
        self.lease = lease


class Compacted(StoreError):
    """History before ``revision`` is gone, so the watch cannot go on without missing events.

    The caller lists again and watches from the list's revision + 1.
    """

    def __init__(self, revision: int, reason: str = "was compacted") -> None:
        super().__init__(f"history before revision {revision} {reason}; list again")
        self.revision = revision


class HistoryReplaced(Compacted):
    """The store's revision went back: it was restored from a backup or begun anew.

    Fencing tokens compare across that only with a raised era.
    """

    def __init__(self, revision: int, seen: int) -> None:
        super().__init__(revision, f"was replaced (revision {seen} had been seen)")
        self.seen = seen
