"""Tells the proxies every two seconds that this launcher lives, and what its kernels do.

It knows HTTP as a client and the credentials; it must not know keepers: the kernels' part of the
body comes from a callable. Any one proxy is enough, because they share what they hear. One that
does not answer is left for the next at once; when none answers, the next round comes after a
jittered pause. Proxies named in answers are learned; the configured ones are never forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    RetryError,
    retry_if_exception_type,
    stop_after_attempt,
    wait_none,
)
from tenacity.wait import wait_random_exponential

from holdfast_launcher import __name__ as _package
from holdfast_launcher.config import LauncherConfig, is_safe_proxy
from holdfast_launcher.state.statefiles import read_json, write_json

HEARTBEAT_VERSION = 1
_MAX_PAUSE = 2.0
#: Failures of all proxies, or refusals, are said at first and then once in so many rounds.
_SAY_EVERY = 30

_log = structlog.get_logger(_package + ".heartbeat")


class _ProxyDown(Exception):
    """This proxy cannot take a heartbeat now; another one may."""


class _Unauthorized(Exception):
    """The proxies do not know what we presented."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What a heartbeat says of the launcher itself. ``access_token`` is a secret."""

    url: str
    fingerprint: str | None
    access_token: str
    engine: str

    def __repr__(self) -> str:
        return f"Presence(url={self.url!r}, engine={self.engine!r})"


class Heartbeat:
    """``report`` answers (kernels, kernelspecs digest); ``news`` makes the next beat go out at once
    instead of when it is due. Run ``run`` as a task, cancel it to stop."""

    def __init__(
        self,
        *,
        config: LauncherConfig,
        presence: Presence,
        report: Callable[[], Awaitable[tuple[dict[str, Any], str]]],
        news: asyncio.Event,
    ) -> None:
        self._config = config
        self._presence = presence
        self._report = report
        self._boot_id = uuid.uuid4().hex
        self._counter = 0
        self._learned: list[str] = []
        self._current: str | None = None
        self._store = config.state / "credential.json"
        stored = read_json(self._store) or {}
        mine = stored.get("launcher_id") == config.launcher_id
        self._credential: str | None = stored.get("credential") if mine else None
        self._news = news
        self._failed_rounds = 0
        self._pause = wait_random_exponential(multiplier=0.1, max=_MAX_PAUSE)

    def __repr__(self) -> str:
        return f"Heartbeat(to={self._current!r}, counter={self._counter})"

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def proxies(self) -> list[str]:
        """Whom to try, in this order: who answered last, the configured, the learned."""
        urls = [self._current] if self._current else []
        return list(dict.fromkeys([*urls, *self._config.proxies, *self._learned]))

    async def run(self) -> None:
        """Beat until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._config.heartbeat_deadline)
        connector = aiohttp.TCPConnector(ssl=self._tls())
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, trust_env=False
        ) as session:
            while True:
                self._news.clear()
                pause = await self._round(session)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()

    async def _round(self, session: aiohttp.ClientSession) -> float:
        """One heartbeat to the first proxy that takes it; answers the pause until the next."""
        proxies = self.proxies()
        if not proxies:
            return self._config.heartbeat_interval
        body = await self._body()
        tried = iter(proxies)
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_ProxyDown),
                stop=stop_after_attempt(len(proxies)),
                wait=wait_none(),
            ):
                with attempt:
                    await self._send(session, next(tried), body)
        except RetryError as error:
            return self._failed("no proxy takes heartbeats", str(error.last_attempt.exception()))
        except _Unauthorized as error:
            return self._refused(str(error))
        if self._failed_rounds:
            _log.info("heartbeat taken again", proxy=self._current)
        self._failed_rounds = 0
        return self._config.heartbeat_interval

    async def _send(self, session: aiohttp.ClientSession, proxy: str, body: dict[str, Any]) -> None:
        secret = self._credential or self._config.join_token
        if secret is None:
            raise _Unauthorized("neither a credential of our own nor a join token")
        url = f"{proxy}/holdfast/v1/launchers/{self._config.launcher_id}"
        headers = {"Authorization": f"Bearer {secret}"}
        try:
            async with session.post(url, json=body, headers=headers, allow_redirects=False) as got:
                if got.status in (401, 403):
                    raise _Unauthorized(f"{proxy} answered {got.status}")
                if got.status != 200:
                    raise _ProxyDown(f"{proxy} answered {got.status}")
                answer = await got.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _ProxyDown(f"{proxy}: {type(error).__name__} {error}") from error
        self._current = proxy
        await self._learn(answer if isinstance(answer, dict) else {})

    async def _body(self) -> dict[str, Any]:
        kernels, digest = await self._report()
        self._counter += 1
        return {
            "version": HEARTBEAT_VERSION,
            "url": self._presence.url,
            "fingerprint": self._presence.fingerprint,
            "access_token": self._presence.access_token,
            "boot_id": self._boot_id,
            "counter": self._counter,
            "engine": self._presence.engine,
            "labels": self._config.labels,
            "capacity": {"kernels": self._config.capacity.kernels},
            "kernelspecs_digest": digest,
            "kernels": kernels,
        }

    async def _learn(self, answer: dict[str, Any]) -> None:
        credential = answer.get("credential")
        if isinstance(credential, str) and credential and credential != self._credential:
            self._credential = credential
            document = {"launcher_id": self._config.launcher_id, "credential": credential}
            await asyncio.to_thread(write_json, self._store, document, durable=True)
            _log.info("joined", proxy=self._current)
        proxies = answer.get("proxies")
        if isinstance(proxies, list):
            urls = [item.get("url") for item in proxies if isinstance(item, dict)]
            self._learned = [
                url.rstrip("/")
                for url in urls
                if isinstance(url, str)
                and is_safe_proxy(url, allow_plain=self._config.allow_plain_proxies)
            ]

    def _refused(self, error: str) -> float:
        if self._credential is not None and self._config.join_token is not None:
            # The cluster forgot us (a new etcd): join again, at once.
            _log.warning("credential refused, joining again", error=error)
            self._credential = None
            return 0.0
        todo = "check join_token and launcher_id against the proxies' configuration"
        if self._config.join_token is None:
            todo = (
                "give this launcher a join_token_file: its own credential is not known (any more)"
            )
        return self._failed("launcher refused", error, todo=todo)

    def _failed(self, event: str, error: str, **more: str) -> float:
        if self._failed_rounds % _SAY_EVERY == 0:
            _log.warning(event, error=error, **more)
        self._failed_rounds += 1
        self._current = None
        # Full jitter, as tenacity draws it for the n-th failure.
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = min(self._failed_rounds, 16)
        return float(self._pause(state))

    def _tls(self) -> Any:
        if self._config.proxy_ca_file is None:
            return True
        import ssl

        return ssl.create_default_context(cafile=Path(self._config.proxy_ca_file))
