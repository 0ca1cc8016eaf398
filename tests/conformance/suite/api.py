"""A plain client of one server: REST by aiohttp, and what cases share.

Nothing of Holdfast is imported here: what is checked must not be checked with its own code.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from conformance.suite.channel import LEGACY, V1, Channel

#: As jupyter_server's gateway client parses it.
STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN: Final = "00000000-0000-4000-8000-000000000000"
#: For what takes a moment on a busy machine; a case as a whole has its own limit.
SECONDS: Final = 40.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Api:
    """One server under test. ``url`` ends with a slash."""

    url: str
    token: str
    session: aiohttp.ClientSession
    #: Called with method, path and answer of each call that had the token.
    seen: list[tuple[str, str, Answer]] = field(default_factory=list)
    _shared: str | None = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        """One call with the token, unless ``headers`` say something else about who asks."""
        sent = {"Authorization": f"token {self.token}"} if headers is None else dict(headers)
        if json_body is not None:
            data, sent["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        async with self.session.request(
            method, self.url + path, headers=sent, data=data, allow_redirects=False
        ) as response:
            raw = await response.read()
            is_json = response.content_type == "application/json" and raw
            answer = Answer(response.status, json.loads(raw) if is_json else raw, response.headers)
        if headers is None:
            self.seen.append((method, path, answer))
        return answer

    async def get(self, path: str) -> Any:
        """The JSON of a GET that must answer 200."""
        answer = await self.ask("GET", path)
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.body!r}"
        return answer.body

    async def start(self, **fields: Any) -> dict[str, Any]:
        """A new kernel's model."""
        answer = await self.ask("POST", "api/kernels", json_body={"name": "python3", **fields})
        assert answer.status == 201, f"POST api/kernels: {answer.status} {answer.body!r}"
        model: dict[str, Any] = answer.body
        return model

    @asynccontextmanager
    async def kernel(self, **fields: Any) -> AsyncIterator[str]:
        """A kernel of this case's own."""
        kernel_id = (await self.start(**fields))["id"]
        try:
            yield kernel_id
        finally:
            await self.ask("DELETE", f"api/kernels/{kernel_id}")

    async def shared_kernel(self) -> str:
        """A kernel for cases that leave it as they found it."""
        if self._shared is None:
            self._shared = (await self.start())["id"]
        return self._shared

    @asynccontextmanager
    async def open_session(self, **fields: Any) -> AsyncIterator[dict[str, Any]]:
        """A session of this case's own; what is left of it is closed."""
        path = fields.pop("path", f"{uuid.uuid4().hex}.ipynb")
        body = {"path": path, "type": "notebook", "name": path, **fields}
        body.setdefault("kernel", {"name": "python3"})
        answer = await self.ask("POST", "api/sessions", json_body=body)
        assert answer.status == 201, f"POST api/sessions: {answer.status} {answer.body!r}"
        try:
            yield answer.body
        finally:
            await self.ask("DELETE", f"api/sessions/{answer.body['id']}")

    @asynccontextmanager
    async def connect(
        self, kernel_id: str, *, session_id: str | None = None, framing: str = V1
    ) -> AsyncIterator[Channel]:
        """A websocket to a kernel, by the standard subprotocol or without one."""
        session_id = session_id or uuid.uuid4().hex
        async with self.session.ws_connect(
            f"{self.url}api/kernels/{kernel_id}/channels",
            params={"session_id": session_id},
            headers={"Authorization": f"token {self.token}"},
            protocols=() if framing == LEGACY else (framing,),
            max_msg_size=0,
        ) as socket:
            yield Channel(socket, session_id)

    async def upgrade_status(self, kernel_id: str, headers: Mapping[str, str] | None = None) -> int:
        """The status of an upgrade that should be refused; 101 when it is not."""
        sent = {"Authorization": f"token {self.token}"} if headers is None else dict(headers)
        try:
            async with self.session.ws_connect(
                f"{self.url}api/kernels/{kernel_id}/channels", headers=sent
            ):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status

    async def wait_state(self, kernel_id: str, state: str, *, seconds: float = SECONDS) -> None:
        """Until the kernel's own model says ``state``."""
        limit = time.monotonic() + seconds
        while (found := await self.get(f"api/kernels/{kernel_id}"))["execution_state"] != state:
            assert time.monotonic() < limit, f"still {found['execution_state']}, not {state}"
            await asyncio.sleep(0.1)

    async def wait_gone(self, kernel_id: str, *, seconds: float = SECONDS) -> None:
        """Until the kernel is 404."""
        limit = time.monotonic() + seconds
        while (await self.ask("GET", f"api/kernels/{kernel_id}")).status != 404:
            assert time.monotonic() < limit, "the kernel is still there"
            await asyncio.sleep(0.1)


def check_error(answer: Answer, *statuses: int) -> None:
    """An error as jupyter_server writes it."""
    assert answer.status in statuses, f"{answer.status} {answer.body!r}"
    assert isinstance(answer.body, dict), f"the error is not JSON: {answer.body!r}"
    assert isinstance(answer.body.get("message"), str), answer.body
    assert "reason" in answer.body, answer.body
    assert not answer.body.get("traceback"), "the error gives a traceback away"


def check_kernel(model: Mapping[str, Any]) -> None:
    """What gateway clients read of a kernel."""
    assert str(uuid.UUID(model["id"])) == model["id"]
    assert isinstance(model["name"], str)
    assert STAMP.fullmatch(model["last_activity"]), model["last_activity"]
    assert model["execution_state"] in ("starting", "idle", "busy", "restarting", "dead")
    assert isinstance(model["connections"], int)
