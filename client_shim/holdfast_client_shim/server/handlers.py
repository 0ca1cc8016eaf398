"""``GET api/holdfast/streams``: whether the shim is in place, and how every stream is now."""

# jupyter_server's handlers have no annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

PATH = "api/holdfast/streams"


class StreamsHandler(APIHandler):
    """Answers what ``document`` gives, to those who may read kernels."""

    auth_resource = "kernels"

    def initialize(self, document: Callable[[], dict[str, Any]]) -> None:
        self._document = document

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """The document."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(self._document()))
