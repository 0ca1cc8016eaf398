"""Calls to launchers: start, find, end, fence, kernelspecs (docs/reference/wire.md).

All are idempotent (by nonce, or by nature), so they are repeated while their time lasts. Must not
know records or the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.record_codec import Fields
from holdfast_proxy.errors import StaleToken
from holdfast_proxy.ownership.calls.calling import Answer, Caller, NoReply, NotSent, Target
from holdfast_proxy.ownership.calls.keepers import QUICK, Guard, no_guard
from holdfast_proxy.ownership.clock import Clock

#: Seconds for a launcher to bring a keeper up, or to prove one gone.
LAUNCH = 60.0
#: Seconds in which a launcher that does not answer is asked again: about its own restart.
_RETRY_FOR = 3.0


class LauncherError(Exception):
    """The launcher gave no useful answer."""


class LauncherUnreachable(LauncherError):
    """No answer; ``sent``: a call may have acted."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class LauncherRefused(LauncherError):
    """It answered no: ``status`` and its machine word ``reason``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.status = answer.status
        self.reason = answer.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What a launcher says of one kernel. Without endpoint it is not alive, on evidence."""

    alive: bool
    reason: str | None = None
    nonce: str | None = None
    spec: str | None = None
    user: str | None = None
    host: str | None = None
    port: int = 0
    fingerprint: str | None = None
    credential: str | None = field(default=None, repr=False)
    epoch: str | None = None
    engine_handle: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Handle:
        """Raises LauncherError for what is not a handle."""
        try:
            # What is let in here ends in a record, and a record with a field of a wrong type is
            # one that no proxy can read any more.
            source = Fields(document, "handle")
            endpoint = source.inner("endpoint") or Fields({}, "handle, field 'endpoint'")
            handle = cls(
                alive=source.boolean("alive", default=True),
                reason=source.text_or_none("reason"),
                nonce=source.text_or_none("nonce"),
                spec=source.text_or_none("spec"),
                user=source.text_or_none("user"),
                host=endpoint.text_or_none("host"),
                port=endpoint.integer("port", default=0),
                fingerprint=source.text_or_none("fingerprint"),
                credential=source.text_or_none("credential"),
                epoch=source.text_or_none("epoch"),
                engine_handle=source.mapping("engine_handle"),
            )
        except RecordError as error:
            raise LauncherError(f"not a kernel's handle: {error}") from error
        complete = handle.host and 0 < handle.port < 65536 and handle.credential and handle.epoch
        if handle.alive and not complete:
            raise LauncherError("a living kernel's handle lacks endpoint, credential or epoch")
        return handle


class LauncherClient:
    """All calls of this proxy to launchers."""

    def __init__(self, *, caller: Caller, clock: Clock) -> None:
        self._caller = caller
        self._clock = clock

    def __repr__(self) -> str:
        return f"<LauncherClient over {self._caller!r}>"

    async def launch(
        self,
        target: Target,
        kernel_id: str,
        token: Token,
        order: Mapping[str, Any],
        *,
        guard: Guard,
    ) -> Handle:
        """Start a keeper, or find the one with this nonce. Raises StaleToken, LauncherError."""
        answer = await self._call(
            "PUT", target, _kernel(kernel_id), token=token, body=order, timeout=LAUNCH, guard=guard
        )
        return Handle.read(answer.document)

    async def find(self, target: Target, kernel_id: str) -> Handle | None:
        """The kernel's handle; None when the launcher never knew it. Raises LauncherError."""
        try:
            answer = await self._call("GET", target, _kernel(kernel_id), timeout=QUICK)
        except LauncherRefused as error:
            if error.status == 404:
                return None
            raise
        return Handle.read(answer.document)

    async def end(
        self, target: Target, kernel_id: str, token: Token, *, timeout: float, guard: Guard
    ) -> None:
        """End keeper and kernel; returns when they are proven gone. Raises StaleToken,
        LauncherError."""
        answer = await self._call(
            "DELETE", target, _kernel(kernel_id), token=token, timeout=timeout, guard=guard
        )
        if answer.document.get("gone") is not True:
            raise LauncherError("the launcher has not proven that the kernel is gone")

    async def fence(self, target: Target, kernel_id: str, token: Token) -> None:
        """Have the token acknowledged. Raises StaleToken, LauncherError."""
        await self._call("POST", target, f"{_kernel(kernel_id)}/fence", token=token, timeout=QUICK)

    async def output(self, target: Target, kernel_id: str, *, lines: int) -> dict[str, str]:
        """What the kernel and its keeper wrote to stdout and stderr; empty when the launcher has
        nothing (any more). Raises LauncherError."""
        where = f"{_kernel(kernel_id)}/output?lines={lines}"
        try:
            answer = await self._call("GET", target, where, timeout=QUICK)
        except LauncherRefused as error:
            if error.status == 404:
                return {}
            raise
        output = answer.document.get("output")
        return {str(k): str(v) for k, v in output.items()} if isinstance(output, dict) else {}

    async def kernelspecs(self, target: Target) -> dict[str, Any]:
        """Jupyter's kernelspecs model. Raises LauncherError."""
        answer = await self._call("GET", target, "/v1/kernelspecs", timeout=5.0)
        return answer.document

    async def resource(self, target: Target, name: str, path: str) -> tuple[bytes, str]:
        """(content, MIME type) of a kernelspec's file. Raises LauncherError."""
        where = f"/v1/kernelspecs/{quote(name, safe='')}/{quote(path)}"
        answer = await self._call("GET", target, where, timeout=5.0)
        return answer.body, answer.headers.get("Content-Type", "application/octet-stream")

    async def _call(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        timeout: float,
        token: Token | None = None,
        body: Mapping[str, Any] | None = None,
        guard: Guard = no_guard,
    ) -> Answer:
        headers = [] if token is None else [("Holdfast-Fence", str(token))]
        give_up = self._clock.now() + min(timeout - QUICK, _RETRY_FOR)
        pause, sent = 0.05, False
        while True:
            guard()
            try:
                answer = await self._caller.call(
                    method,
                    target,
                    path,
                    headers=headers,
                    body=body,
                    timeout=timeout,
                    acts=method != "GET",
                )
            except NotSent as error:
                message = str(error)
            except NoReply as error:
                message, sent = str(error), True
            else:
                return _accepted(answer)
            if self._clock.now() + pause > give_up:
                raise LauncherUnreachable(message, sent=sent)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)


def _kernel(kernel_id: str) -> str:
    return f"/v1/kernels/{quote(kernel_id, safe='')}"


def _accepted(answer: Answer) -> Answer:
    if answer.status == 412:
        raise StaleToken(
            "another proxy has taken this kernel over meanwhile; nothing was done, ask again",
            reason="stale_token",
        )
    if not answer.ok:
        raise LauncherRefused(answer)
    return answer
