"""A keeper's end of the line to its launcher: claim, ready, and what its kernel does.

It runs on the far machine beside the keeper and knows the launcher's address, its certificate and
a token; it must not know kernels or schedulers. A launcher that is away for a while (a restart, a
cut network) is waited for; one that says no is believed at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.state.keeper_files import ACTIVITY_FILE, KEEPER_FILE
from holdfast_launcher.state.statefiles import read_json

#: One call, connecting included, in seconds.
_DEADLINE: Final = 5.0
#: How long a launcher that does not answer is waited for before a start gives up.
PATIENCE: Final = 900.0
#: Between two looks at what the kernel does.
_INTERVAL: Final = 1.0

_log = structlog.get_logger(__name__)


class NotWanted(Exception):
    """The launcher does not want this start (any more), or another process has it."""


class LauncherAway(Exception):
    """No answer, or "not now"."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a remote process is told on its standard input, and all that it is told there.
    ``token`` is a secret."""

    kernel_id: str
    url: str
    fingerprint: str | None
    token: str
    #: Where the keeper keeps its files on that machine; None: below its temporary directory.
    directory: str | None = None
    #: Seconds after which the scheduler ends the job; None: never.
    time_limit: int | None = None
    #: Seconds before that at which it was asked to send SIGUSR1.
    notice: int = 60
    #: What to call the engine when telling the user.
    engine: str = "engine"

    def __repr__(self) -> str:
        return f"Order(kernel_id={self.kernel_id!r}, url={self.url!r})"

    @classmethod
    def parse(cls, text: str) -> Order:
        """From JSON; unknown fields are a newer launcher's. Raises ValueError."""
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("not an object")  # noqa: TRY004 - it is the text that is wrong
        known = {name: document[name] for name in cls.__slots__ if name in document}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


class Line:
    """Calls to one launcher about one start."""

    def __init__(self, order: Order, *, incarnation: str) -> None:
        self._order = order
        self._incarnation = incarnation

    def __repr__(self) -> str:
        return f"Line({self._order!r}, {self._incarnation[:8]})"

    async def claim(self, identity: Mapping[str, Any]) -> KeeperConfig:
        """Win the start. Raises NotWanted, LauncherAway after ``PATIENCE`` seconds."""
        body = {"incarnation": self._incarnation, **identity}
        answer = await self._insist("claim", self._order.token, body)
        return KeeperConfig.from_json(json.dumps(answer["config"]))

    async def ready(self, keeper: Mapping[str, Any]) -> None:
        """Say where the keeper listens. Raises NotWanted, LauncherAway."""
        body = {"incarnation": self._incarnation, "keeper": dict(keeper)}
        await self._insist("ready", self._order.token, body)

    async def report(self, directory: Path, credential: str) -> None:
        """Say what the kernel does, whenever its keeper has written that down; until cancelled."""
        said: dict[str, Any] | None = None
        while True:
            activity = read_json(directory / ACTIVITY_FILE)
            if activity is not None and activity != said:
                try:
                    await self._call("activity", credential, activity)
                    said = activity
                except (LauncherAway, NotWanted) as error:
                    # Whether the kernel goes on is not for the launcher's absence to say.
                    _log.debug("activity not said", error=str(error))
            await asyncio.sleep(_INTERVAL)

    async def _insist(self, what: str, secret: str, body: Mapping[str, Any]) -> dict[str, Any]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(LauncherAway),
            wait=wait_random_exponential(multiplier=0.1, max=5.0),
            stop=stop_after_delay(PATIENCE),
            reraise=True,
        )
        return await retrying(self._call, what, secret, body)

    async def _call(self, what: str, secret: str, body: Mapping[str, Any]) -> dict[str, Any]:
        order = self._order
        url = f"{order.url}/v1/starts/{order.kernel_id}/{what}"
        pin = order.fingerprint
        verify: bool | aiohttp.Fingerprint = (
            True if pin is None else aiohttp.Fingerprint(bytes.fromhex(pin))
        )
        headers = {"Authorization": f"Bearer {secret}"}
        try:
            async with (
                asyncio.timeout(_DEADLINE),
                aiohttp.ClientSession(trust_env=False) as session,
                session.post(
                    url, json=body, headers=headers, ssl=verify, allow_redirects=False
                ) as got,
            ):
                status, data = got.status, await got.read()
        except aiohttp.ServerFingerprintMismatch as error:
            raise NotWanted(f"at {order.url} another certificate answers: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise LauncherAway(f"{order.url}: {type(error).__name__} {error}") from error
        return _read(status, data)


def _read(status: int, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:
        document = {}
    answer = document if isinstance(document, dict) else {}
    if status >= 500:
        raise LauncherAway(f"HTTP {status} {answer.get('message', '')}")
    if status != 200:
        raise NotWanted(f"HTTP {status} {answer.get('message', '')}")
    return answer


async def wait_keeper_file(directory: Path) -> dict[str, Any]:
    """``keeper.json`` once the keeper has written it."""
    while True:
        document = read_json(directory / KEEPER_FILE)
        if document is not None:
            return document
        await asyncio.sleep(0.01)
