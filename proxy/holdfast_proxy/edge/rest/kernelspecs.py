"""``/api/kernelspecs`` and ``/kernelspecs/…``: what kernels there are, and their logos.

Rewrites resource paths to this proxy's base path: ``jupyter_server`` splits them at the last
``/kernelspecs/`` and puts its own base before the rest. ``kernel.json`` is never served as a
resource: its argv and env are nobody's business who only wants a logo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from ...errors import NotFound
from ..context import EDGE, Edge


async def list_kernelspecs(request: web.Request) -> web.Response:
    edge = request.app[EDGE]
    # With KERNEL_USERNAME set, jupyter_server puts ?user= before the name of a single spec, and
    # so asks for /api/kernelspecs?user=<user>/<name>.
    _, slash, name = request.query.get("user", "").rpartition("/")
    if slash:
        return _one_kernelspec(edge, name)
    found = edge.cluster.kernelspecs()
    specs = {
        name: spec_json(name, model, edge.config.base_url)
        for name, model in found["kernelspecs"].items()
    }
    return web.json_response({"default": found["default"], "kernelspecs": specs})


async def get_kernelspec(request: web.Request) -> web.Response:
    return _one_kernelspec(request.app[EDGE], request.match_info["name"])


def _one_kernelspec(edge: Edge, name: str) -> web.Response:
    model = edge.cluster.kernelspecs()["kernelspecs"].get(name)
    if model is None:
        raise NotFound(f"there is no kernelspec {name!r}", reason="unknown_kernelspec")
    return web.json_response(spec_json(name, model, edge.config.base_url))


async def get_resource(request: web.Request) -> web.Response:
    name, path = request.match_info["name"], request.match_info["path"]
    parts = path.split("/")
    if parts[-1] == "kernel.json" or any(part in ("", ".", "..") for part in parts):
        raise NotFound("there is no such resource", reason="unknown_resource")
    content, mime_type = await request.app[EDGE].cluster.kernelspec_resource(name, path)
    return web.Response(
        body=content,
        content_type=mime_type,
        headers={
            # A logo may be SVG, and SVG may carry scripts.
            "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
            "X-Content-Type-Options": "nosniff",
        },
    )


def spec_json(name: str, model: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    """A kernelspec's model with its resources under ``base_url``."""
    resources = {
        key: _resource_path(name, str(path), base_url)
        for key, path in (model.get("resources") or {}).items()
    }
    return {**model, "name": model.get("name", name), "resources": resources}


def _resource_path(name: str, path: str, base_url: str) -> str:
    parts = path.rsplit("/kernelspecs/", maxsplit=1)
    rest = parts[1] if len(parts) == 2 else f"{quote(name)}/{path.rpartition('/')[2]}"
    return f"{base_url}kernelspecs/{rest}"
