"""``/api/me``: who the token's holder is and what they may do, as Jupyter front ends ask.

A proxy authorizes all or nothing: whoever has a user's token may do with that user's kernels what
there is to do. So the answer follows from the resources that there are. Source: the Jupyter
Server REST API, ``IdentityHandler``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from ...errors import BadRequest
from ..context import identity_of

#: Resource → what a user may do with it here. Anything else (contents, terminals) is not here.
ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    "api": ("read",),
    "kernels": ("read", "write", "execute"),
    "kernelspecs": ("read",),
    "sessions": ("read", "write"),
}


async def get_me(request: web.Request) -> web.Response:
    name = identity_of(request).user or ""
    identity = {
        "username": name,
        "name": name,
        "display_name": name,
        "initials": None,
        "avatar_url": None,
        "color": None,
    }
    asked = _read_permissions(request.query.get("permissions"))
    granted = {
        resource: [action for action in actions if action in ALLOWED.get(resource, ())]
        for resource, actions in asked.items()
    }
    return web.json_response({"identity": identity, "permissions": granted})


def _read_permissions(text: str | None) -> dict[str, list[str]]:
    """``{"resource": ["action", …]}``. Raises BadRequest."""
    if not text:
        return {}
    try:
        asked: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("permissions is not JSON") from error
    if not isinstance(asked, dict) or not all(
        isinstance(actions, list) and all(isinstance(action, str) for action in actions)
        for actions in asked.values()
    ):
        raise BadRequest('permissions must be like {"kernels": ["read", "execute"]}')
    return asked
