"""What the shim tells JupyterLab, from a script: a Jupyter Server extension for these tests.

It emits the events and answers the question of docs/reference/shim.md, and knows nothing of
kernels and gateways. What it answers is read from a file each time, so that a test can change it
without anybody noticing; a POST emits one event.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado import web

SCHEMA_ID = "urn:holdfast:kernel-stream:v1"
#: Names the file that holds the answer: {"status": …, "body": …}.
ANSWER_FILE = "FAKE_SHIM_ANSWER"

_SCHEMA = {
    "$id": SCHEMA_ID,
    "version": "1",
    "title": "How a kernel's stream is",
    "personal-data": True,
    "type": "object",
    "required": ["kernel_id", "session_id", "state", "reason", "gateway", "since", "resumed"],
    "properties": {
        **{
            name: {"type": "string", "title": name}
            for name in ("kernel_id", "session_id", "state", "reason", "gateway", "since")
        },
        "resumed": {"type": ["object", "null"], "title": "resumed"},
    },
}


class StreamsHandler(APIHandler):
    """What the test wrote into the file."""

    @web.authenticated
    def get(self) -> None:
        answer = json.loads(Path(os.environ[ANSWER_FILE]).read_text())
        self.set_status(answer["status"])
        self.finish(json.dumps(answer["body"]))


class EmitHandler(APIHandler):
    """Emit what is posted."""

    @web.authenticated
    def post(self) -> None:
        data: dict[str, Any] = self.get_json_body() or {}
        self.event_logger.emit(schema_id=SCHEMA_ID, data=data)
        self.set_status(204)
        self.finish()


def _load_jupyter_server_extension(app: ServerApp) -> None:
    app.event_logger.register_event_schema(_SCHEMA)
    base = app.web_app.settings["base_url"]
    app.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, "api/holdfast/streams"), StreamsHandler),
            (url_path_join(base, "test/emit"), EmitHandler),
        ],
    )


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "fake_shim"}]
