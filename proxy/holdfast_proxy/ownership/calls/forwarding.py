"""Passing a restart or delete on to the kernel's owner, once (docs/reference/wire.md, "Proxy").

The request keeps its id, its ``after`` and what is left of its age limit. What the owner answers
is what our client gets; only ``Misdirected`` and an owner that did not get the request come back
to the one who decides. Must not know records or the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from holdfast_proxy.cluster import KernelModel, LifecycleCall, StartRequest
from holdfast_proxy.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Misdirected,
    NotFound,
    StaleToken,
    StartFailed,
    Unavailable,
)
from holdfast_proxy.ownership.calls.calling import Answer, Caller, NoReply, NotSent, Target
from holdfast_proxy.ownership.calls.keepers import START, call_headers
from holdfast_proxy.ownership.clock import Clock


class OwnerUnreachable(Exception):
    """The owner has not answered; ``sent``: it may have acted."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Forwarder:
    """Calls other proxies in a client's name."""

    def __init__(self, *, me: str, cluster_key: str, caller: Caller, clock: Clock) -> None:
        self._me = me
        self._cluster_key = cluster_key
        self._caller = caller
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Forwarder of {self._me}>"

    async def restart(
        self, peer: Target, kernel_id: str, user: str, call: LifecycleCall
    ) -> KernelModel:
        """Raises OwnerUnreachable, Misdirected and what the owner answered."""
        answer = await self._pass_on("POST", peer, kernel_id, "/restart", user, call)
        return _model(answer.document)

    async def delete(self, peer: Target, kernel_id: str, user: str, call: LifecycleCall) -> None:
        """Raises OwnerUnreachable, Misdirected and what the owner answered."""
        await self._pass_on("DELETE", peer, kernel_id, "", user, call)

    async def start(self, peer: Target, request: StartRequest) -> KernelModel:
        """A start, to the leader; a repeated one follows the record, so it may always be.

        Raises OwnerUnreachable, Misdirected and what the leader answered.
        """
        headers = [("Holdfast-Forwarded", self._me), ("Holdfast-User", request.user)]
        if request.request_id is not None:
            headers.append(("Holdfast-Request", request.request_id))
        env = {**request.env, "KERNEL_ID": request.kernel_id}
        body = {"name": request.spec_name, "path": request.path, "env": env}
        answer = await self._ask("POST", peer, "/api/kernels", headers, body)
        return _model(answer.document)

    async def _pass_on(
        self,
        method: str,
        peer: Target,
        kernel_id: str,
        action: str,
        user: str,
        call: LifecycleCall,
    ) -> Answer:
        headers = [*call_headers(call), ("Holdfast-Forwarded", self._me), ("Holdfast-User", user)]
        if call.deadline is not None:
            left = call.deadline - self._clock.now()
            if left <= 0:
                raise Unavailable("the request waited longer than it is good for; ask again")
            headers.append(("Holdfast-Max-Age", f"{left:.3f}"))
        path = f"/api/kernels/{quote(kernel_id, safe='')}{action}"
        return await self._ask(method, peer, path, headers, None)

    async def _ask(
        self,
        method: str,
        peer: Target,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: Mapping[str, Any] | None,
    ) -> Answer:
        target = Target(url=peer.url, bearer=self._cluster_key, fingerprint=peer.fingerprint)
        try:
            answer = await self._caller.call(
                method, target, path, headers=headers, body=body, timeout=START, acts=True
            )
        except NotSent as error:
            raise OwnerUnreachable(str(error), sent=False) from error
        except NoReply as error:
            raise OwnerUnreachable(str(error), sent=True) from error
        if not answer.ok:
            _raise_as_answered(answer)
        return answer


def _raise_as_answered(answer: Answer) -> None:
    message = answer.message
    match answer.status:
        case 421:
            owner = answer.document.get("owner")
            raise Misdirected(message, owner=owner if isinstance(owner, str) else None)
        case 404:
            raise NotFound(message)
        case 409 if answer.reason == "stale_token":
            raise StaleToken(message, reason=answer.reason)
        case 409:
            raise Conflict(message, reason=answer.reason or None)
        case 400:
            raise BadRequest(message, reason=answer.reason or None)
        case 403:
            raise Forbidden(message)
        case 500 if answer.reason == "start_failed":  # others are not a proxy's: no kernel ended
            raise StartFailed(message)
        case _:
            # 401 too: proxies whose cluster keys differ are an operator's fault, not the user's.
            raise Unavailable(f"the kernel's owner answered {answer.status}: {message}")


def _model(document: Mapping[str, Any]) -> KernelModel:
    return KernelModel(
        id=str(document.get("id")),
        name=str(document.get("name")),
        last_activity=str(document.get("last_activity")),
        execution_state=str(document.get("execution_state")),
        connections=int(document.get("connections") or 0),
        reason=document.get("reason"),
    )
