"""Message by message between a client's websocket and a keeper's, after the standin.

The standin has parsed the client's frames, so it cannot become a blind tunnel in mid-stream: this
relay goes on where it was. It forwards whole messages, pings and pongs in their order, because a
keeper takes a pong as the proof that what it had sent before it has arrived (DESIGN section 3).
It is for clients that came before their kernel was up; a reconnect gets the tunnel. Must not
know what a message means.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from aiohttp import WSMsgType, web

from ...cluster import KeeperEndpoint
from ..tunnel.dial import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    KeeperUnreachable,
    check_endpoint,
    tune,
)

ABNORMAL: Final = 1006
COME_BACK: Final = 1012

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Upstream:
    """A keeper's websocket, opened as its client. Use as an async context manager."""

    def __init__(self, endpoint: KeeperEndpoint) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    def __repr__(self) -> str:
        state = "open" if self.socket is not None and not self.socket.closed else "closed"
        return f"<Upstream {self._endpoint.host}:{self._endpoint.port} {state}>"

    async def open(
        self, *, subprotocol: str | None, session_id: str | None, headers: dict[str, str]
    ) -> aiohttp.ClientWebSocketResponse:
        """Connect and upgrade. Raises KeeperUnreachable."""
        endpoint = self._endpoint
        check_endpoint(endpoint)
        scheme = "ws" if endpoint.fingerprint is None else "wss"
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        # aiohttp compares a Fingerprint before it writes the request.
        pin = (
            True
            if endpoint.fingerprint is None
            else aiohttp.Fingerprint(bytes.fromhex(endpoint.fingerprint.replace(":", "")))
        )
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS + ANSWER_SECONDS):
                self.socket = await self._session.ws_connect(
                    f"{scheme}://{host}:{endpoint.port}/v1/channels",
                    params=None if session_id is None else {"session_id": session_id},
                    headers={"Authorization": f"Bearer {endpoint.credential}", **headers},
                    protocols=() if subprotocol is None else (subprotocol,),
                    ssl=pin,
                    autoping=False,
                    max_msg_size=0,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self.close()
            raise KeeperUnreachable(
                f"cannot open a websocket to {endpoint.host}:{endpoint.port}: "
                f"{type(error).__name__}"
            ) from error
        except BaseException:  # cancelled: the client has left meanwhile
            await self.close()
            raise
        tune(self.socket)
        return self.socket

    async def close(self) -> None:
        """Close the websocket and its session. Idempotent."""
        if self.socket is not None:
            await self.socket.close()
        if self._session is not None:
            await self._session.close()


async def forward(message: aiohttp.WSMessage, to: Socket) -> bool:
    """Pass one message on; False when it ends the connection. Waits while ``to`` is slow."""
    if message.type is WSMsgType.TEXT:
        await to.send_str(message.data)
    elif message.type is WSMsgType.BINARY:
        await to.send_bytes(message.data)
    elif message.type is WSMsgType.PING:
        await to.ping(message.data)
    elif message.type is WSMsgType.PONG:
        await to.pong(message.data)
    else:
        return False
    return True


async def forward_all(source: aiohttp.ClientWebSocketResponse, to: web.WebSocketResponse) -> int:
    """Forward until the source ends; the close code to pass on."""
    while await forward(await source.receive(), to):
        pass
    code = source.close_code
    # 1005 and 1006 must not be sent (RFC 6455 7.4.1); a keeper that broke off is come back to.
    return code if code is not None and code not in (1005, ABNORMAL) else COME_BACK
