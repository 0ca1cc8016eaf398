"""Anything at a keeper's websocket: it closes that connection with a named code, at most, and
serves the next one."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from pathlib import Path

import aiohttp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from holdfast_protocol.errors import CloseCode
from holdfast_protocol.frames import (
    STREAM_SUBPROTOCOL,
    Ack,
    Chunk,
    ClientData,
    Gap,
    KeeperData,
    Resume,
    Resumed,
)
from holdfast_protocol.jupyter import V1_SUBPROTOCOL, encode_legacy, encode_v1
from support.keeper_clients import SECONDS, StreamClient, execute
from support.keeper_process import NURSERY, KeeperProcess, running_keeper

U64 = st.one_of(st.integers(0, 8), st.integers(0, 2**64 - 1))
ID = st.binary(min_size=16, max_size=16)
MESSAGE = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda code: encode_v1(execute(code)), st.sampled_from(["echo x", "quiet", ""])),
)
FRAME = st.one_of(
    st.binary(max_size=120),
    st.builds(Resume, ID, U64, ID, U64, U64, U64).map(Resume.encode),
    st.builds(
        lambda seq, messages: ClientData(seq, tuple(messages)).encode(),
        U64,
        st.lists(MESSAGE, min_size=1, max_size=3),
    ),
    st.builds(
        lambda a, s, o, t, piece: Chunk(a, s, o, t, piece).encode(),
        U64, U64, U64, U64, st.binary(min_size=1, max_size=40),
    ),
    st.builds(lambda seq: Ack(seq).encode(), U64),
    st.builds(lambda a, b: Gap(a, b, 1, "no").encode(), U64, U64),
    st.builds(lambda e, s: Resumed(e, s, 0, 0).encode(), ID, U64),
    st.just(KeeperData(1, ((2, b"x"),)).encode()),
)  # fmt: skip
TEXT = st.one_of(st.text(max_size=60), st.just(encode_legacy(execute("echo legacy"))))
CODES = {int(code) for code in CloseCode} | {1000, 1002, 1003, 1007}


async def throw(keeper: KeeperProcess, protocol: str | None, sent: list[bytes | str]) -> None:
    protocols = () if protocol is None else (protocol,)
    ws = await keeper.websocket(f"fuzz-{uuid.uuid4().hex}", *protocols)
    for item in sent:
        try:
            await (ws.send_bytes(item) if isinstance(item, bytes) else ws.send_str(str(item)))
        except ConnectionError:
            break
    nonce = uuid.uuid4().bytes
    while not ws.closed:
        try:
            await ws.ping(nonce)
        except ConnectionError:
            break
        message = await ws.receive(timeout=SECONDS)
        if message.type is aiohttp.WSMsgType.PONG and message.data == nonce:
            break  # it has read everything, and lives
        if message.type is aiohttp.WSMsgType.CLOSE:
            assert message.data in CODES
            break
    await ws.close()


async def batter(protocol: str | None, batches: list[list[bytes | str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with running_keeper(Path(directory) / "k") as keeper:
            await keeper.start_kernel()
            for batch in batches:
                await throw(keeper, protocol, batch)
            client = StreamClient(keeper, "sound")
            await client.connect()
            assert (await client.run("echo alive"))[1] == ["alive"]
            assert (await keeper.state())["connections"] == 1
            log = keeper.log_text()
            assert "connection.failed" not in log
            assert "Traceback" not in log


FUZZ = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def run(protocol: str | None, batches: list[list[bytes | str]]) -> None:
    asyncio.run(batter(protocol, batches))


@FUZZ
@given(st.lists(st.lists(FRAME, max_size=5), min_size=10, max_size=20))
def test_stream_frames(batches: list[list[bytes | str]]) -> None:
    hello = Resume(b"h" * 16, 1).encode()
    run(STREAM_SUBPROTOCOL, [[hello, *batch] for batch in batches] + batches)


@FUZZ
@given(st.lists(st.lists(st.one_of(MESSAGE, TEXT), max_size=4), min_size=10, max_size=20))
def test_plain_messages(batches: list[list[bytes | str]]) -> None:
    run(V1_SUBPROTOCOL, batches)


@FUZZ
@given(st.lists(st.lists(st.one_of(MESSAGE, TEXT), max_size=4), min_size=10, max_size=20))
def test_legacy_messages(batches: list[list[bytes | str]]) -> None:
    run(None, batches)


def teardown_module() -> None:
    NURSERY.end()
