"""What a transaction must look like before it is sent: the rules that both twins refuse by.

They are etcd's own (`etcdserver/api/v3rpc/key.go`: no key twice among the puts of a branch, no
put inside a deleted range, limits on count and size) plus ours on empty compares. Checked here,
so that a mistake is `Misuse` in every twin and never an etcd error text.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_proxy.store.contract import (
    MAX_TXN_BYTES,
    MAX_TXN_OPS,
    Compare,
    Delete,
    DeletePrefix,
    Get,
    Op,
    Put,
    ValueEquals,
)
from holdfast_proxy.store.errors import Misuse


def check_txn(
    compares: Sequence[Compare],
    then: Sequence[Op],
    otherwise: Sequence[Op],
    *,
    unconditional: bool,
) -> None:
    """Raises `Misuse` for a transaction that the contract forbids."""
    if not compares and not unconditional:
        raise Misuse("a transaction without a compare overwrites blindly; say unconditional=True")
    if compares and unconditional:
        raise Misuse("unconditional=True contradicts the compares that were given")
    if unconditional and otherwise:
        raise Misuse("an unconditional transaction never runs `otherwise`")
    if max(len(compares), len(then), len(otherwise)) > MAX_TXN_OPS:
        raise Misuse(f"more than {MAX_TXN_OPS} compares or operations in one transaction")
    for compare in compares:
        check_key(compare.key)
        check_revision(compare)
    for branch in (then, otherwise):
        _check_branch(branch)
    size = _size(compares, then, otherwise)
    if size > MAX_TXN_BYTES:
        raise Misuse(f"a transaction of {size} bytes; the limit is {MAX_TXN_BYTES}")


def check_key(key: str) -> None:
    """An empty key is an error in etcd, and a NUL means "to the end" in its range ends."""
    if not key or "\0" in key:
        raise Misuse(f"not a key or prefix: {key!r}")


def check_revision(compare: Compare) -> None:
    if not isinstance(compare, ValueEquals) and compare.revision < 0:
        raise Misuse(f"a revision is not negative: {compare}")


def _check_branch(branch: Sequence[Op]) -> None:
    puts: set[str] = set()
    for op in branch:
        check_key(op.prefix if isinstance(op, DeletePrefix) else op.key)
        if isinstance(op, Put):
            if op.key in puts:
                raise Misuse(f"{op.key} is put twice in one transaction")
            puts.add(op.key)
    for op in branch:
        if isinstance(op, Delete) and op.key in puts:
            raise Misuse(f"{op.key} is put and deleted in one transaction")
        if isinstance(op, DeletePrefix) and any(key.startswith(op.prefix) for key in puts):
            raise Misuse(f"a key under {op.prefix} is put and deleted in one transaction")


def _size(compares: Sequence[Compare], *branches: Sequence[Op]) -> int:
    total = 0
    for compare in compares:
        total += len(compare.key.encode())
        total += len(compare.value) if isinstance(compare, ValueEquals) else 0
    for branch in branches:
        for op in branch:
            match op:
                case Put(key, value):
                    total += len(key.encode()) + len(value)
                case DeletePrefix(text) | Delete(text) | Get(text):
                    total += len(text.encode())
    return total


def check_lease(lease: int) -> None:
    if lease <= 0:
        raise Misuse(f"not a lease: {lease}")


def check_ttl(ttl: float) -> None:
    """etcd takes 1 s to 9,000,000,000 s; more than a day is a unit mistake here."""
    if not 0 < ttl <= 86_400:
        raise Misuse(f"a lease's time to live is seconds, up to a day: {ttl}")


def check_start(start_revision: int) -> None:
    """0 would be "from now" in etcd: whatever happened since the caller's list is missed."""
    if start_revision < 1:
        raise Misuse(f"a watch starts at a revision from 1: {start_revision}")
