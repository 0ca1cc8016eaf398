"""The fault line does to bytes what its weather says, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from support.chaos.line import FAIR, FaultLine, Way, Weather

PIECE = b"0123456789" * 100


@pytest.fixture
async def line() -> AsyncIterator[FaultLine]:
    """One to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the test resets it
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with FaultLine(server.sockets[0].getsockname()[1]) as line:
        yield line
    server.close()


async def dial(line: FaultLine) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", line.port)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """One piece there and back."""
    writer.write(PIECE)
    async with asyncio.timeout(20):
        return await reader.readexactly(len(PIECE))


async def test_in_fair_weather_it_is_not_there(line: FaultLine) -> None:
    reader, writer = await dial(line)
    assert await ask(reader, writer) == PIECE
    writer.close()


async def test_a_reset_reaches_the_client(line: FaultLine) -> None:
    reader, writer = await dial(line)
    await ask(reader, writer)
    assert line.reset() == 1
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(20):
            await reader.read()
    writer.close()
    again = await dial(line)
    assert await ask(*again) == PIECE
    again[1].close()


async def test_a_cut_leaves_half_a_piece(line: FaultLine) -> None:
    reader, writer = await dial(line)
    await ask(reader, writer)
    line.cut_next(Way.DOWN)
    writer.write(PIECE)
    received = b""
    with suppress(ConnectionResetError):  # bytes on their way up make it a reset, not an end
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                received += data
    assert 0 < len(received) < len(PIECE)
    writer.close()


@pytest.mark.parametrize("way", list(Way))
async def test_a_half_open_line_moves_nothing_until_it_heals(line: FaultLine, way: Way) -> None:
    reader, writer = await dial(line)
    await ask(reader, writer)
    line.weather = Weather(held=frozenset({way}))
    writer.write(PIECE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.read(1)
    line.weather = FAIR
    async with asyncio.timeout(20):
        assert await reader.readexactly(len(PIECE)) == PIECE
    writer.close()


async def test_a_delay_is_at_least_that(line: FaultLine) -> None:
    reader, writer = await dial(line)
    line.weather = Weather(delay=0.1)
    began = time.monotonic()
    await ask(reader, writer)
    assert time.monotonic() - began >= 0.2  # there and back
    writer.close()


async def test_a_rate_is_at_most_that(line: FaultLine) -> None:
    reader, writer = await dial(line)
    line.weather = Weather(rate=len(PIECE) / 0.1)
    began = time.monotonic()
    await ask(reader, writer)
    assert time.monotonic() - began >= 0.2
    writer.close()


async def test_a_server_that_is_away_ends_the_connection(line: FaultLine) -> None:
    async with FaultLine(1) as dead:
        reader, writer = await dial(dead)
        with suppress(ConnectionResetError):  # either is an end
            async with asyncio.timeout(20):
                assert await reader.read() == b""
        writer.close()
