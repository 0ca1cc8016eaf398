"""The status event that a front end listens to, and its schema.

Front ends get it over ``/api/events/subscribe``. What a page that was opened later missed, it
asks of ``/api/holdfast/streams``.
"""

from __future__ import annotations

from typing import Any, Final

SCHEMA_ID: Final = "urn:holdfast:kernel-stream:v1"

SCHEMA: Final[dict[str, Any]] = {
    "$id": SCHEMA_ID,
    "version": "1",
    "title": "How a notebook's connection to its kernel is",
    "description": "Emitted when the state, its reason or the gateway changes, and after a break.",
    "type": "object",
    "required": ["kernel_id", "session_id", "state", "reason", "gateway", "since", "resumed"],
    "properties": {
        "kernel_id": {"type": "string", "title": "Kernel"},
        "session_id": {"type": "string", "title": "Session id of the notebook's websocket"},
        "state": {
            "enum": ["connected", "resuming", "waiting", "unreachable", "gone"],
            "title": "State",
            "description": "resuming: the connection broke and is being dialled again. waiting: "
            "the gateway has the kernel queued or starting. unreachable: no gateway answers, or "
            "none can reach the kernel. gone: the kernel is no more.",
        },
        "reason": {"type": "string", "title": "One sentence for people; may be empty"},
        "gateway": {"type": "string", "title": "URL of the gateway in use; empty if none"},
        "since": {"type": "string", "title": "When the state began: ISO 8601, UTC"},
        "resumed": {
            "title": "The break that has just ended",
            "oneOf": [
                {"type": "null"},
                {
                    "type": "object",
                    "required": ["seconds", "recovered", "lost"],
                    "properties": {
                        "seconds": {"type": "number"},
                        "recovered": {"type": "integer"},
                        "lost": {"type": "integer"},
                    },
                },
            ],
        },
    },
}
