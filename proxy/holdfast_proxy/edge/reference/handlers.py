"""``/api/openapi.json``, and ``/api/docs``, which shows it to people.

The page is made here from the document, without a script and without a foreign host, so that its
policy allows one style sheet of our own and nothing else. Both are public: they say what any
reader of the source knows, and nothing about this cluster. Rejected: Swagger UI (a script of a
megabyte, from a CDN as a rule).
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

from aiohttp import web

from ..context import EDGE
from ..internal import package_version
from .document import openapi

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SECURITY: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_STYLE: Final = files(__package__).joinpath("reference.css").read_text("utf-8")


def reference_routes(base: str) -> list[web.RouteDef]:
    """What the application registers besides the calls of the table; all of it is public."""
    return [
        web.get(f"{base}api/openapi.json", openapi_document),
        web.get(f"{base}api/docs", reference_page),
        web.get(f"{base}api/docs/reference.css", reference_style),
    ]


async def openapi_document(request: web.Request) -> web.Response:
    """The document itself; any page may read it."""
    document = _document(request)
    return web.json_response(
        document, headers={"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
    )


async def reference_page(request: web.Request) -> web.Response:
    base = request.app[EDGE].config.base_url
    text = "\n".join(_page(_document(request), base))
    return web.Response(text=text, content_type="text/html", headers=_SECURITY)


async def reference_style(_: web.Request) -> web.Response:
    return web.Response(text=_STYLE, content_type="text/css", headers=_SECURITY)


PUBLIC: Final = frozenset({openapi_document, reference_page, reference_style})


def _document(request: web.Request) -> dict[str, Any]:
    return openapi(request.app[EDGE].config.base_url, version=package_version())


def _page(document: dict[str, Any], base: str) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<title>Holdfast: the API</title>"
    yield f'<link rel="stylesheet" href="{html.escape(base)}api/docs/reference.css"></head><body>'
    about, version = document["info"]["description"], document["info"]["version"]
    link = f'<a href="{html.escape(base)}api/openapi.json">As an OpenAPI document</a>'
    yield f"<header><h1>The API of this proxy</h1><p>{_text(about)} Version {_text(version)}. "
    yield f"{link}.</p>"
    yield "<p>Send your token with each request: <code>Authorization: token …</code></p></header>"
    yield "<main>"
    for tag in document["tags"]:
        yield f'<section><h2 id="{_text(tag["name"])}">{_text(tag["name"].capitalize())}</h2>'
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if method != "head" and tag["name"] in operation["tags"]:
                    yield from _operation(base.rstrip("/") + path, method, operation)
        yield "</section>"
    yield '<section><h2 id="shapes">Shapes</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{_text(name)}"><summary>{_text(name)}</summary>'
        yield f"<pre>{_text(json.dumps(schema, indent=2))}</pre></details>"
    yield "</section></main></body></html>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    name = _text(operation["operationId"])
    yield f'<article id="{name}"><h3><span class="method {method}">{method.upper()}</span> '
    yield f"<code>{_text(path)}</code></h3><p>{_text(operation['summary'])}</p>"
    if operation.get("security") == []:
        yield '<p class="note">Needs no token.</p>'
    rows = [
        (item["name"], item["in"], item.get("description", "")) for item in operation["parameters"]
    ]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        rows.append(("body", "JSON", schema.rpartition("/")[2]))
    if rows:
        yield from _table(("what you send", "where", "meaning"), rows)
    answers = [
        (status, answer["description"], _shape(answer))
        for status, answer in sorted(operation["responses"].items())
    ]
    yield from _table(("status", "meaning", "shape"), answers)
    yield "</article>"


def _shape(answer: dict[str, Any]) -> str:
    for content in answer.get("content", {}).values():
        return str(content["schema"]["$ref"]).rpartition("/")[2]
    return ""


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> Iterator[str]:
    cells = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    yield f"<table><thead><tr>{cells}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"


def _text(value: str) -> str:
    return html.escape(value)
