"""The log as its reader gets it over HTTP: JSON lines, one entry each. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from holdfast_protocol.jupyter import Message, decode_v1
from holdfast_protocol.log import LogReader

MAX_LINES = 10_000


def log_lines(log: LogReader, *, after: int, session_id: str | None, limit: int) -> Iterator[bytes]:
    """Entries from ``after`` + 1 on that are for everybody, or for ``session_id`` too.

    What is gone from the log comes first, as ``{"gap": {"first", "last"}}``.
    """
    index = log.index
    if after < index.floor:
        yield _line({"gap": {"first": after + 1, "last": index.floor}})
    seq = max(after, index.floor)
    lines = 0
    while lines < limit and seq < index.head:
        seq += 1
        entry = index.entry(seq)
        if entry is None:  # it went while our reader took its time
            yield _line({"gap": {"first": seq, "last": index.floor}})
            seq = index.floor
            continue
        if entry.audience not in (None, session_id):
            continue
        try:
            message = decode_v1(bytes(log.read(seq)))
        except KeyError:  # dropped while we were writing
            yield _line({"gap": {"first": seq, "last": index.floor}})
            seq = max(seq, index.floor)
            continue
        lines += 1
        yield _entry(seq, message)


def _entry(seq: int, message: Message) -> bytes:
    # the parts are JSON already: spliced in, so that numbers keep their digits
    parts = (
        b'{"seq":%d,"channel":"%s"' % (seq, message.channel.encode()),
        b',"header":' + (message.header or b"{}"),
        b',"parent_header":' + (message.parent or b"{}"),
        b',"metadata":' + (message.metadata or b"{}"),
        b',"content":' + (message.content or b"{}"),
        b',"buffers":'
        + json.dumps([base64.b64encode(b).decode() for b in message.buffers]).encode(),
        b"}",
    )
    # a line must be one line, also when a kernel pretty-prints: JSON has no raw newlines inside
    return b"".join(parts).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
