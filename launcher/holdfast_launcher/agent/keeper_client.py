"""What the agent says to a keeper, over HTTP: two calls, each with a deadline.

It knows aiohttp and the keeper's endpoint; it must not decide what an answer means for a kernel.
A keeper off loopback is known by its certificate's fingerprint and by nothing else.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from holdfast_launcher.config import is_wildcard
from holdfast_launcher.errors import StaleToken
from holdfast_launcher.state.keeper_files import KeeperFile
from holdfast_protocol.errors import RecordError
from holdfast_protocol.fencing import Token

_FENCE_HEADER = "Holdfast-Fence"


class KeeperSilent(Exception):
    """No answer within the deadline: says nothing about whether the keeper lives."""


class KeeperStranger(Exception):
    """What answers there is not the keeper of this incarnation."""


class KeeperClient:
    """``deadline`` in seconds bounds each call, connecting included."""

    def __init__(self, *, deadline: float = 3.0) -> None:
        self._deadline = deadline
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"KeeperClient({'open' if self._session else 'closed'})"

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def recognise(self, file: KeeperFile) -> dict[str, Any]:
        """The keeper's state if it is the one that wrote ``file``.

        Raises KeeperSilent, or KeeperStranger when a different one answered.
        """
        status, body = await self._call("GET", file, "/v1/kernel")
        if status >= 500:
            raise KeeperSilent(f"HTTP {status}")
        if status != 200:
            raise KeeperStranger(f"HTTP {status} to our credential")
        if (body.get("kernel_id"), body.get("nonce")) != (file.kernel_id, file.nonce):
            raise KeeperStranger("it answers for another kernel or another start")
        return body

    async def shutdown(self, file: KeeperFile, fence: Token) -> bool:
        """Ask it to end its kernel and itself now; True when it says that it does.

        Raises StaleToken when the keeper has acknowledged a higher token, KeeperSilent.
        """
        status, body = await self._call(
            "POST", file, "/v1/shutdown", body={"now": True}, fence=fence
        )
        if status == 412:
            try:
                highest = Token.from_list(body.get("fence"))
            except RecordError:
                highest = fence
            raise StaleToken("the keeper has acknowledged a higher token", highest=highest)
        return status == 200

    async def _call(
        self,
        method: str,
        file: KeeperFile,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        fence: Token | None = None,
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {file.credential}"}
        if fence is not None:
            headers[_FENCE_HEADER] = str(fence)
        host = file.endpoint.host
        host = "127.0.0.1" if is_wildcard(host) else host
        host = f"[{host}]" if ":" in host else host
        pin = file.fingerprint
        url = f"{'http' if pin is None else 'https'}://{host}:{file.endpoint.port}{path}"
        verify = True if pin is None else aiohttp.Fingerprint(bytes.fromhex(pin))
        try:
            async with (
                asyncio.timeout(self._deadline),
                self._opened().request(method, url, json=body, headers=headers, ssl=verify) as got,
            ):
                return got.status, _object(await got.read())
        except aiohttp.ServerFingerprintMismatch as error:
            raise KeeperStranger("another certificate") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KeeperSilent(f"{type(error).__name__}: {error}") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A call every now and then: connections are not kept, so none is stale.
            connector = aiohttp.TCPConnector(force_close=True, limit=32)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
