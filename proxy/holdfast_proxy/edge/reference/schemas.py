"""The shapes of bodies and answers, as JSON Schema (2020-12), by the names that ``calls`` uses.

Constants only. The conformance suite holds every answer of a real proxy against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_UUID: Final = {"type": "string", "format": "uuid"}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}
#: What jupyter_server's gateway client parses: UTC, always with a fraction of a second.
_TIME: Final = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z$",
}


def _object(required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": sorted(required),
        "properties": {**required, **optional},
    }


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_WISH: Final = {
    "type": ["object", "null"],
    "description": "A kernel that there is (id), or a new one of a kernelspec (name).",
    "properties": {"id": _MAYBE_TEXT, "name": _MAYBE_TEXT},
}
_NOTEBOOK: Final = _object({"path": _TEXT, "name": _TEXT})

SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Error": _object({"reason": _TEXT, "message": _TEXT}, owner=_MAYBE_TEXT),
    "Version": _object({"version": _TEXT}),
    "Status": _object(
        {"started": _TIME, "last_activity": _TIME, "connections": _COUNT, "kernels": _COUNT}
    ),
    "Me": _object(
        {
            "identity": _object(
                {"username": _TEXT, "name": _TEXT, "display_name": _TEXT},
                initials=_MAYBE_TEXT,
                avatar_url=_MAYBE_TEXT,
                color=_MAYBE_TEXT,
            ),
            "permissions": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": _TEXT},
            },
        }
    ),
    "Kernelspec": _object(
        {
            "name": _TEXT,
            "spec": _object(
                {"display_name": _TEXT, "language": _TEXT, "argv": {"type": "array"}},
                env={"type": "object"},
                metadata={"type": "object"},
            ),
            "resources": {"type": "object", "additionalProperties": _TEXT},
        }
    ),
    "Kernelspecs": _object(
        {
            "default": _MAYBE_TEXT,
            "kernelspecs": {"type": "object", "additionalProperties": _ref("Kernelspec")},
        }
    ),
    "Kernel": _object(
        {
            "id": _UUID,
            "name": _TEXT,
            "last_activity": _TIME,
            "execution_state": {
                "enum": ["starting", "idle", "busy", "restarting", "dead", "unknown"]
            },
            "connections": _COUNT,
        },
        reason={"type": "string", "description": "Why it is dead, or what its start waits for."},
    ),
    "Kernels": _list("Kernel"),
    "StartKernel": _object(
        {},
        name={"type": ["string", "null"], "description": "A kernelspec; without it the default."},
        path={"type": ["string", "null"], "description": "The notebook, below the root."},
        env={
            "type": ["object", "null"],
            "description": "KERNEL_* and what the configuration allows; the rest is dropped.",
        },
    ),
    "Nothing": {"type": ["object", "null"]},
    "Session": _object(
        {"id": _UUID, "path": _TEXT, "name": _TEXT, "type": _TEXT, "kernel": _ref("Kernel")},
        notebook=_NOTEBOOK,
    ),
    "Sessions": _list("Session"),
    "OpenSession": _object({"path": _TEXT, "type": _TEXT}, name=_MAYBE_TEXT, kernel=_WISH),
    "ChangeSession": _object(
        {}, path=_MAYBE_TEXT, type=_MAYBE_TEXT, name=_MAYBE_TEXT, kernel=_WISH
    ),
    "Output": _object(
        {
            "id": _UUID,
            "state": _TEXT,
            "reason": _MAYBE_TEXT,
            "launcher": _TEXT,
            "output": {"type": "object", "additionalProperties": _TEXT},
        }
    ),
    "Endpoints": _object(
        {"proxies": {"type": "array", "items": _object({"id": _TEXT, "url": _TEXT})}, "self": _TEXT}
    ),
    "WhoAmI": _object({"proxy_id": _TEXT, "boot_id": _TEXT, "version": _TEXT}),
    "Liveness": _object({"status": _TEXT}),
    "Readiness": _object({"status": _TEXT, "message": _TEXT}),
    "Lines": {"type": "string", "description": "One JSON object a line."},
    "File": {"type": "string", "format": "binary"},
}
