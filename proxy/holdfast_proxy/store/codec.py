"""Between the contract's values and etcd's messages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast_proxy.store.contract import (
    Compare,
    CreateEquals,
    Delete,
    Deleted,
    DeletePrefix,
    Event,
    Found,
    Get,
    KeyValue,
    Member,
    ModEquals,
    Op,
    Put,
    Response,
    Stored,
    TxnResult,
    ValueEquals,
)
from holdfast_proxy.store.stubs import Messages

#: etcd's ``mvccpb.Event.EventType.DELETE``
_EVENT_DELETE = 1


def prefix_end(prefix: str) -> bytes:
    """The first key after all that start with ``prefix``. UTF-8 has no byte 0xff to carry."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def key_value(kv: Any) -> KeyValue:
    return KeyValue(
        kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
    )


def event(event: Any) -> Event:
    deleted = event.type == _EVENT_DELETE
    return Event(
        event.kv.key.decode(), event.kv.mod_revision, None if deleted else key_value(event.kv)
    )


def member(member: Any) -> Member:
    return Member(
        member.ID, member.name, tuple(member.peerURLs), tuple(member.clientURLs), member.isLearner
    )


def txn_request(
    messages: Messages, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]
) -> Any:
    return messages.TxnRequest(
        compare=[_compare(messages, compare) for compare in compares],
        success=[_op(messages, op) for op in then],
        failure=[_op(messages, op) for op in otherwise],
    )


def txn_result(answer: Any, then: Sequence[Op], otherwise: Sequence[Op]) -> TxnResult:
    ops = then if answer.succeeded else otherwise
    responses = tuple(
        _response(op, response) for op, response in zip(ops, answer.responses, strict=True)
    )
    return TxnResult(answer.succeeded, answer.header.revision, responses)


def _compare(messages: Messages, compare: Compare) -> Any:
    """An absent key compares as revision 0, and its value with nothing (`applyCompare`)."""
    kind = messages.Compare
    key = compare.key.encode()
    match compare:
        case ModEquals(_, revision):
            return kind(result=kind.EQUAL, target=kind.MOD, key=key, mod_revision=revision)
        case CreateEquals(_, revision):
            return kind(result=kind.EQUAL, target=kind.CREATE, key=key, create_revision=revision)
        case ValueEquals(_, value):
            return kind(result=kind.EQUAL, target=kind.VALUE, key=key, value=value)


def _op(messages: Messages, op: Op) -> Any:
    match op:
        case Put(key, value, lease):
            put = messages.PutRequest(key=key.encode(), value=value, lease=lease)
            return messages.RequestOp(request_put=put)
        case Delete(key):
            delete = messages.DeleteRangeRequest(key=key.encode())
            return messages.RequestOp(request_delete_range=delete)
        case DeletePrefix(prefix):
            delete = messages.DeleteRangeRequest(key=prefix.encode(), range_end=prefix_end(prefix))
            return messages.RequestOp(request_delete_range=delete)
        case Get(key):
            return messages.RequestOp(request_range=messages.RangeRequest(key=key.encode()))


def _response(op: Op, response: Any) -> Response:
    match op:
        case Put():
            return Stored()
        case Delete() | DeletePrefix():
            return Deleted(response.response_delete_range.deleted)
        case Get():
            kvs = response.response_range.kvs
            return Found(key_value(kvs[0]) if kvs else None)
