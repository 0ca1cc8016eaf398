"""etcd's gRPC messages, from the ``etcd3`` package, without importing that package.

``import etcd3`` fails with every protobuf from 4 on: its generated modules build their
descriptors through an API that is gone. The serialized descriptors in them are sound, so this
module reads them out of the source text (parsed, never run), adds the fields that etcd has
gained since (`_ADDITIONS`; numbers from etcd's ``rpc.proto``), and builds the classes in a
descriptor pool of its own. That pool cannot clash with another etcd client in the process, since
every one of them registers ``rpc.proto`` and ``kv.proto`` in the default pool.

Must not know: channels, and what the messages are used for.

Rejected: generated code of our own (a second copy of the same descriptors, tied to a protobuf
version at its making) and etcd's JSON gateway (off in many clusters, and base64 in long polls).
"""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: In the order of their imports of each other.
_FILES: Final = ("kv", "auth", "rpc")
_Field = descriptor_pb2.FieldDescriptorProto

#: message -> (field, number, type, message type or None, oneof or None); etcd 3.4 and 3.5.
_ADDITIONS: Final = {
    "WatchProgressRequest": (),
    "WatchRequest": (
        (
            "progress_request",
            3,
            _Field.TYPE_MESSAGE,
            ".etcdserverpb.WatchProgressRequest",
            "request_union",
        ),
    ),
    "WatchCreateRequest": (
        ("watch_id", 7, _Field.TYPE_INT64, None, None),
        ("fragment", 8, _Field.TYPE_BOOL, None, None),
    ),
    "WatchResponse": (("fragment", 7, _Field.TYPE_BOOL, None, None),),
    "Member": (("isLearner", 5, _Field.TYPE_BOOL, None, None),),
}


class StubsMissing(ImportError):
    """The ``etcd3`` distribution is not installed, or is not the one that we know."""


class Messages:
    """The message classes by their name in etcd's API: ``messages.RangeRequest(key=...)``."""

    def __init__(self, classes: dict[str, Any]) -> None:
        self._classes = classes

    def __repr__(self) -> str:
        return f"<Messages of {len(self._classes)} types>"

    def __getattr__(self, name: str) -> Any:
        try:
            return self._classes[name]
        except KeyError:
            raise AttributeError(f"etcd has no message {name}") from None


@lru_cache(maxsize=1)
def load_messages() -> Messages:
    """Read once (about 0.1 s). Raises `StubsMissing`."""
    pool = descriptor_pool.DescriptorPool()
    classes: dict[str, Any] = {}
    for name in _FILES:
        proto = descriptor_pb2.FileDescriptorProto.FromString(_serialized(name))
        if name == "rpc":
            _extend(proto)
        pool.Add(proto)
        for message in proto.message_type:
            full_name = f"{proto.package}.{message.name}"
            descriptor = pool.FindMessageTypeByName(full_name)
            classes[message.name] = message_factory.GetMessageClass(descriptor)
    return Messages(classes)


def _serialized(name: str) -> bytes:
    """The ``serialized_pb=`` literal of ``etcd3/etcdrpc/<name>_pb2.py``."""
    source = _source(name)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            # Written as _b('...'), which encodes to latin-1, by the protoc that etcd3 used.
            value = node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            literal = ast.literal_eval(value)
            return literal if isinstance(literal, bytes) else str(literal).encode("latin-1")
    raise StubsMissing(f"etcd3/etcdrpc/{name}_pb2.py holds no descriptor; install etcd3==0.12.0")


def _source(name: str) -> str:
    # find_spec of a top-level name locates it and runs none of it.
    spec = importlib.util.find_spec("etcd3")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "etcdrpc", f"{name}_pb2.py")
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise StubsMissing("etcd3/etcdrpc is not installed; install holdfast[proxy]")


def _extend(proto: Any) -> None:
    """Add what is missing; a later etcd3 that has it is left as it is."""
    known = {message.name: message for message in proto.message_type}
    for message_name, fields in _ADDITIONS.items():
        message = known.get(message_name)
        if message is None:
            message = proto.message_type.add(name=message_name)
        present = {field.name for field in message.field}
        for name, number, kind, type_name, oneof in fields:
            if name in present:
                continue
            field = message.field.add(name=name, number=number, type=kind)
            field.label = _Field.LABEL_OPTIONAL
            if type_name is not None:
                field.type_name = type_name
            if oneof is not None:
                field.oneof_index = [one.name for one in message.oneof_decl].index(oneof)
