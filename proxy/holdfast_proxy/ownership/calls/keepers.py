"""Calls to keepers: fence, start, interrupt, restart, shutdown, state (docs/reference/wire.md).

Each method makes one logical call with one deadline. It is repeated only when nothing was sent,
or when the keeper would answer the repetition as the first (a request id, or idempotent by its
nature). ``guard`` runs right before each send, with nothing awaited in between: it refuses what
has become too old while it waited. Must not know records or the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token
from holdfast_protocol.record_codec import Fields
from holdfast_proxy.cluster import KeeperEndpoint, LifecycleCall
from holdfast_proxy.config import is_loopback
from holdfast_proxy.errors import StaleToken
from holdfast_proxy.ownership.calls.calling import Answer, Caller, NoReply, NotSent, Target
from holdfast_proxy.ownership.clock import Clock

#: Seconds for a call that a living keeper answers at once.
QUICK = 2.0
#: Seconds for a kernel to come up; the keeper has a limit of its own below this.
START = 180.0
#: Seconds that an interrupt may take: the keeper waits up to 5 s for what is to come before it.
INTERRUPT = 10.0
#: Seconds in which a call that was not sent, or may be repeated, is tried again.
_RETRY_FOR = 5.0

Guard = Callable[[], None]


class KeeperError(Exception):
    """The keeper gave no useful answer."""


class KeeperUnreachable(KeeperError):
    """No answer; ``sent``: the call may have acted."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class KeeperRefused(KeeperError):
    """It answered no: ``status``, its machine word ``reason``, and of a start that failed the
    last lines of the kernel's own ``output``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.status = answer.status
        self.reason = answer.reason
        self.output = str(answer.document.get("output") or "")

    @property
    def explained(self) -> str:
        """The message with the end of the output, short enough for a record."""
        words = "\n".join(self.output.strip().splitlines()[-8:])[-1000:]
        return f"{self}; it said:\n{words}" if words else str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """A keeper's log: ``size`` and ``limit`` are bytes (an earlier keeper says no limit), ``head``
    and ``floor`` seqs, ``lost`` how many messages were dropped before everybody had them."""

    size: int
    limit: int | None
    head: int
    floor: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperState:
    """What a keeper says of itself and its kernel."""

    nonce: str
    epoch: str
    incarnation: int
    execution_state: str
    reason: str | None
    last_activity: str | None
    connections: int
    kernel_session: str | None
    log: LogState | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> KeeperState:
        """Raises KeeperError for what is not a keeper's state."""
        source = Fields(document, "state")
        try:
            return cls(
                nonce=source.text("nonce"),
                epoch=source.text("epoch"),
                incarnation=source.integer("incarnation"),
                execution_state=source.text("execution_state"),
                reason=source.text_or_none("reason"),
                last_activity=source.text_or_none("last_activity"),
                connections=source.integer("connections", default=0),
                kernel_session=source.text_or_none("kernel_session"),
                log=_log_state(source.inner("log")),
            )
        except RecordError as error:
            raise KeeperError(f"not a keeper's state: {error}") from error


def _log_state(source: Fields | None) -> LogState | None:
    """Raises RecordError."""
    if source is None:
        return None
    return LogState(
        size=source.integer("bytes"),
        limit=source.integer("limit", default=0) or None,
        head=source.integer("head"),
        floor=source.integer("floor"),
        lost=source.integer("lost", default=0),
    )


def no_guard() -> None:
    """For calls that no delay makes wrong."""


class KeeperClient:
    """All calls of this proxy to keepers."""

    def __init__(self, *, caller: Caller, clock: Clock) -> None:
        self._caller = caller
        self._clock = clock

    def __repr__(self) -> str:
        return f"<KeeperClient over {self._caller!r}>"

    async def state(self, endpoint: KeeperEndpoint, *, timeout: float = QUICK) -> KeeperState:
        """Raises KeeperError."""
        answer = await self._call("GET", endpoint, "/v1/kernel", timeout=timeout, patient=False)
        return KeeperState.read(answer.document)

    async def fence(self, endpoint: KeeperEndpoint, token: Token) -> None:
        """Have the token acknowledged. Raises StaleToken, KeeperError."""
        await self._call("POST", endpoint, "/v1/fence", token=token, timeout=QUICK, patient=False)

    async def start(
        self, endpoint: KeeperEndpoint, token: Token, nonce: str, *, guard: Guard
    ) -> KeeperState:
        """Start the kernel unless it was started; idempotent. Raises StaleToken, KeeperError."""
        answer = await self._call(
            "POST",
            endpoint,
            "/v1/start",
            token=token,
            body={"nonce": nonce},
            timeout=START,
            guard=guard,
            repeat=True,
        )
        return KeeperState.read(answer.document)

    async def interrupt(
        self, endpoint: KeeperEndpoint, call: LifecycleCall, *, guard: Guard
    ) -> None:
        """No token: any proxy may. Raises KeeperError."""
        await self._call(
            "POST",
            endpoint,
            "/v1/interrupt",
            headers=call_headers(call),
            timeout=INTERRUPT,
            guard=guard,
            repeat=call.request_id is not None,
        )

    async def restart(
        self, endpoint: KeeperEndpoint, token: Token, call: LifecycleCall, *, guard: Guard
    ) -> KeeperState:
        """Answers when the next incarnation is ready. Raises StaleToken, KeeperError."""
        answer = await self._call(
            "POST",
            endpoint,
            "/v1/restart",
            token=token,
            headers=call_headers(call),
            timeout=START,
            guard=guard,
            repeat=call.request_id is not None,
        )
        return KeeperState.read(answer.document)

    async def shutdown(
        self, endpoint: KeeperEndpoint, token: Token, *, now: bool, timeout: float, guard: Guard
    ) -> None:
        """End kernel and keeper. Raises StaleToken, KeeperError."""
        await self._call(
            "POST",
            endpoint,
            "/v1/shutdown",
            token=token,
            body={"now": now},
            timeout=timeout,
            guard=guard,
            patient=False,
        )

    async def _call(
        self,
        method: str,
        endpoint: KeeperEndpoint,
        path: str,
        *,
        timeout: float,
        token: Token | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        guard: Guard = no_guard,
        repeat: bool = False,
        patient: bool = True,
    ) -> Answer:
        """``repeat``: also after a lost answer. ``patient``: try again what was not sent."""
        target, sent_headers = keeper_target(endpoint), [*headers, *_fence(token)]
        give_up = self._clock.now() + (min(timeout, _RETRY_FOR) if patient else 0.0)
        pause, sent = 0.05, False
        while True:
            guard()
            try:
                answer = await self._caller.call(
                    method,
                    target,
                    path,
                    headers=sent_headers,
                    body=body,
                    timeout=timeout,
                    acts=method != "GET",
                )
            except NotSent as error:
                message = str(error)
            except NoReply as error:
                message, sent = str(error), True
                if not repeat:
                    raise KeeperUnreachable(message, sent=True) from error
            else:
                return _accepted(answer)
            if self._clock.now() + pause > give_up:
                raise KeeperUnreachable(message, sent=sent)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)


def keeper_target(endpoint: KeeperEndpoint) -> Target:
    """Raises KeeperUnreachable when its credential would cross a network in clear."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    if endpoint.fingerprint is None and not is_loopback(endpoint.host):
        raise KeeperUnreachable(
            f"the keeper at {endpoint.host} has no certificate fingerprint, and plain HTTP is "
            "for loopback only",
            sent=False,
        )
    scheme = "http" if endpoint.fingerprint is None else "https"
    return Target(
        url=f"{scheme}://{host}:{endpoint.port}",
        bearer=endpoint.credential,
        fingerprint=endpoint.fingerprint,
    )


def call_headers(call: LifecycleCall) -> list[tuple[str, str]]:
    """``Holdfast-Request``, and one ``Holdfast-After`` for each session."""
    headers: list[tuple[str, str]] = []
    if call.request_id is not None:
        headers.append(("Holdfast-Request", call.request_id))
    headers += [("Holdfast-After", f"{session}:{seq}") for session, seq in call.after]
    return headers


def _fence(token: Token | None) -> list[tuple[str, str]]:
    return [] if token is None else [("Holdfast-Fence", str(token))]


def _accepted(answer: Answer) -> Answer:
    if answer.status == 412:
        fence = answer.document.get("fence")
        raise StaleToken(
            "another proxy has taken this kernel over meanwhile; nothing was done, ask again"
            + (f" (it acknowledged {fence})" if fence else ""),
            reason="stale_token",
        )
    if not answer.ok:
        raise KeeperRefused(answer)
    return answer
