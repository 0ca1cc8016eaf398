"""How a keeper closes a websocket whose peer does not answer: with a close frame as its last."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from holdfast_protocol.frames import STREAM_SUBPROTOCOL
from holdfast_protocol.jupyter import V1_SUBPROTOCOL
from support.keeper_process import CREDENTIAL, KeeperProcess, running_keeper

#: aiohttp's own ping would be due between the close frame and the end of the connection.
PREAMBLE = """
import holdfast_launcher.keeper.serve.http as http
http.HEARTBEAT = 1.2
"""
CLOSE, PING = 8, 9


async def silent_peer(
    keeper: KeeperProcess, protocol: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A websocket that reads and never writes, not even what the protocol asks for."""
    where = urlsplit(keeper.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    key = base64.b64encode(bytes(16)).decode()
    writer.write(
        f"GET /v1/channels?session_id=s HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {CREDENTIAL}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\nHoldfast-Grants: read,execute\r\n"
        "Holdfast-Tunnel: t-1\r\n\r\n".encode()
    )
    assert b" 101 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
    return reader, writer


def opcodes(data: bytes) -> list[int]:
    """Of unmasked, unfragmented frames one after another."""
    found = []
    while data:
        found.append(data[0] & 15)
        length, head = data[1], 2
        if length == 126:
            length, head = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(data[2:10], "big"), 10
        data = data[head + length :]
    return found


@pytest.mark.parametrize("protocol", [STREAM_SUBPROTOCOL, V1_SUBPROTOCOL])
async def test_nothing_follows_a_close_frame(tmp_path: Path, protocol: str) -> None:
    async with running_keeper(tmp_path / "k", preamble=PREAMBLE) as keeper:
        await keeper.start_kernel()
        reader, writer = await silent_peer(keeper, protocol)
        try:
            status, drained = await keeper.post("drain", {"tunnels": ["t-1"]})
            assert (status, drained) == (200, {"drained": ["t-1"]})
            async with asyncio.timeout(10):
                said = await reader.read()
        finally:
            writer.close()
        frames = opcodes(said)
        assert frames.count(CLOSE) == 1
        assert frames[-1] == CLOSE
