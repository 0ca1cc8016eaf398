"""The OpenAPI 3.1 document of a proxy, made from the table of calls. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .calls import CALLS, Call, parameters_of, template_of
from .schemas import SCHEMAS

#: Status → what it means wherever it comes (DESIGN, promise 6).
ERRORS: Final = {
    400: "The request makes no sense; the message says what to change",
    401: "A valid token is needed",
    403: "A page of this origin may not ask",
    404: "It is not there: proven, or another user's",
    409: "This id is used already",
    410: "It was there and is gone",
    500: "The kernel could not be started; the message has its last words",
    503: "Not possible now; Retry-After says in how many seconds to ask again",
}
_HEADERS: Final = {
    "Holdfast-Request": "The same id for a repeated call: it acts once",
    "Holdfast-Max-Age": "Seconds for which the call stays meaningful; 10 without it",
}


def openapi(base: str, *, version: str) -> dict[str, Any]:
    """The document of a proxy whose paths begin with ``base``."""
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        paths.setdefault("/" + template_of(call.path), {})[call.method.lower()] = _operation(call)
        if call.method == "GET" and call.head:
            paths["/" + template_of(call.path)]["head"] = _head(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": version,
            "description": "The Jupyter kernel gateway API as a Holdfast proxy serves it.",
        },
        "servers": [{"url": base.rstrip("/") or "/"}],
        "security": [{"token": []}, {"bearer": []}],
        "tags": [{"name": name} for name in _unique(call.tag for call in CALLS)],
        "paths": paths,
        "components": {
            "schemas": {name: dict(schema) for name, schema in SCHEMAS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": 'Jupyter\'s own scheme: "Authorization: token <token>".',
                },
            },
        },
    }


def _operation(call: Call) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": call.name,
        "tags": [call.tag],
        "summary": call.about,
        "parameters": _parameters(call),
        "responses": _responses(call),
    }
    if call.body is not None:
        schema = {"$ref": f"#/components/schemas/{call.body}"}
        operation["requestBody"] = {
            "required": call.body in ("OpenSession", "ChangeSession"),
            "content": {"application/json": {"schema": schema}},
        }
    if call.public:
        operation["security"] = []
    return operation


def _head(call: Call) -> dict[str, Any]:
    """The same without a body (RFC 9110, section 9.3.2)."""
    operation = _operation(call)
    operation["operationId"] = f"head_{call.name}"
    operation["summary"] = "The headers of the same GET."
    operation["responses"] = {
        status: {"description": answer["description"]}
        for status, answer in operation["responses"].items()
    }
    return operation


def _parameters(call: Call) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in parameters_of(call.path)
    ]
    found += [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.about,
            "schema": {"type": query.type},
        }
        for query in call.query
    ]
    if call.method != "GET":
        found += [
            {"name": name, "in": "header", "description": about, "schema": {"type": "string"}}
            for name, about in _HEADERS.items()
        ]
    return found


def _responses(call: Call) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, (about, name) in call.answers.items():
        answers[str(status)] = {"description": about}
        if name is not None:
            schema = {"$ref": f"#/components/schemas/{name}"}
            answers[str(status)]["content"] = {call.media: {"schema": schema}}
    errors = () if call.public else (401, 403, *call.errors)
    for status in errors:
        schema = {"$ref": "#/components/schemas/Error"}
        answers.setdefault(
            str(status),
            {
                "description": ERRORS[status],
                "content": {"application/json": {"schema": schema}},
            },
        )
    return answers


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
