"""``/api/kernels/{id}/channels``: framings, messages, reconnects."""

from __future__ import annotations

import asyncio
import uuid

from conformance.suite.api import UNKNOWN, Api
from conformance.suite.channel import LEGACY, V1
from conformance.suite.registry import JUPYTER_SERVER, KERNEL_GATEWAY, case

_BUFFERS = (
    "from comm import create_comm\n"
    "c = create_comm(target_name='conformance', data={'n': 1}, buffers=[bytes(range(256)), b''])"
)
_BOTH_FRAMINGS = (V1, LEGACY)


@case("websocket")
async def unknown_kernels_websocket(api: Api) -> None:
    """An upgrade for an unknown kernel is 404"""
    assert await api.upgrade_status(UNKNOWN) == 404


@case("websocket")
async def subprotocols(api: Api) -> None:
    """The standard subprotocol is chosen when it is offered, and none when none is"""
    kernel_id = await api.shared_kernel()
    async with api.connect(kernel_id) as channel:
        assert channel.socket.protocol == V1
    async with api.connect(kernel_id, framing=LEGACY) as channel:
        assert channel.socket.protocol is None


@case("websocket")
async def kernel_info(api: Api) -> None:
    """`kernel_info_request` is answered on shell and control, in both framings"""
    kernel_id = await api.shared_kernel()
    for framing in _BOTH_FRAMINGS:
        async with api.connect(kernel_id, framing=framing) as channel:
            for name in ("shell", "control"):
                found = await channel.gather(
                    await channel.send("kernel_info_request", {}, channel=name)
                )
                assert found.reply["channel"] == name
                assert found.reply["content"]["status"] == "ok"


@case("websocket")
async def cell(api: Api) -> None:
    """A cell's busy, input, output, reply and idle arrive with its parent, in both framings"""
    kernel_id = await api.shared_kernel()
    for framing in _BOTH_FRAMINGS:
        async with api.connect(kernel_id, framing=framing) as channel:
            found = await channel.execute("print('größer 日本')\n1 + 1")
            states = [m["content"]["execution_state"] for m in found.of("status")]
            assert states == ["busy", "idle"]
            assert found.text == "größer 日本\n"
            (result,) = found.of("execute_result")
            assert result["content"]["data"]["text/plain"] == "2"
            assert result["channel"] == "iopub"
            assert found.reply["content"]["status"] == "ok"


@case("websocket")
async def failing_cell(api: Api) -> None:
    """An error arrives as output and as the reply"""
    async with api.connect(await api.shared_kernel()) as channel:
        found = await channel.execute("1 / 0")
        assert found.of("error")[0]["content"]["ename"] == "ZeroDivisionError"
        assert found.reply["content"]["status"] == "error"


@case("websocket")
async def order(api: Api) -> None:
    """500 outputs arrive in order"""
    async with api.connect(await api.shared_kernel()) as channel:
        code = "from IPython.display import display\nfor i in range(500): display(i)"
        found = await channel.execute(code)
        numbers = [int(m["content"]["data"]["text/plain"]) for m in found.of("display_data")]
        assert numbers == list(range(500))


@case(
    "websocket",
    {
        JUPYTER_SERVER: "Its rate limiter drops output above 1,000 messages a second, and says so "
        "once in the cell.",
        KERNEL_GATEWAY: "Its rate limiter drops output above 1,000 messages a second, and says so "
        "once in the cell.",
    },
)
async def burst(api: Api) -> None:
    """A burst of 5,000 outputs arrives whole"""
    async with api.connect(await api.shared_kernel()) as channel:
        code = (
            "from IPython.display import publish_display_data as show\n"
            "for i in range(5000): show({'text/plain': str(i)})"
        )
        found = await channel.gather_all(await channel.begin(code))
        numbers = [int(m["content"]["data"]["text/plain"]) for m in found.of("display_data")]
        assert numbers == list(range(5000)), f"{len(numbers)} of 5000"


@case("websocket")
async def stdin(api: Api) -> None:
    """`input()` asks the one who ran the cell, and the answer gets there"""
    async with api.connect(await api.shared_kernel()) as channel:
        msg_id = await channel.begin("print('got', input('name? '))", stdin=True)
        asked = await channel.gather(msg_id, until=lambda found: bool(found.of("input_request")))
        (request,) = asked.of("input_request")
        assert (request["channel"], request["content"]["prompt"]) == ("stdin", "name? ")
        content = {"value": "Ada", "status": "ok"}
        await channel.send("input_reply", content, channel="stdin", parent=request["header"])
        assert (await channel.gather(msg_id)).text == "got Ada\n"


@case("websocket")
async def buffers_out(api: Api) -> None:
    """Binary buffers of a kernel's message arrive byte by byte, in both framings"""
    kernel_id = await api.shared_kernel()
    for framing in _BOTH_FRAMINGS:
        async with api.connect(kernel_id, framing=framing) as channel:
            (opened,) = (await channel.execute(_BUFFERS)).of("comm_open")
            assert [bytes(part) for part in opened["buffers"]] == [bytes(range(256)), b""]


@case("websocket")
async def large_output(api: Api) -> None:
    """One message of 12 MB arrives"""
    async with api.connect(await api.shared_kernel()) as channel:
        code = "from IPython.display import display, Markdown\ndisplay(Markdown('x' * 12_000_000))"
        (shown,) = (await channel.execute(code)).of("display_data")
        assert len(shown["content"]["data"]["text/markdown"]) == 12_000_000


@case("websocket")
async def two_clients(api: Api) -> None:
    """Output goes to all clients of a kernel, a reply only to the one who asked"""
    kernel_id = await api.shared_kernel()
    async with api.connect(kernel_id) as one, api.connect(kernel_id) as two:
        mine = await one.execute("print('shared')")
        theirs = await two.gather(
            mine.msg_id,
            until=lambda found: found.idle,
        )
        assert theirs.text == "shared\n"
        assert theirs.of("execute_reply") == []


@case("websocket")
async def output_while_away(api: Api) -> None:
    """What a cell printed while its client was away arrives when it returns with its session"""
    async with api.kernel() as kernel_id:
        session = uuid.uuid4().hex
        async with api.connect(kernel_id, session_id=session) as channel:
            msg_id = await channel.begin(
                "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.1)"
            )
            first = await channel.gather(msg_id, until=lambda found: "1\n" in found.text)
        async with api.connect(kernel_id, session_id=session) as channel:
            rest = await channel.gather(msg_id)
        lines = (first.text + rest.text).split()
        assert sorted(set(lines), key=int) == [str(i) for i in range(20)]
        assert rest.reply["content"]["status"] == "ok"


@case("websocket")
async def reply_while_away(api: Api) -> None:
    """A cell that ended while its client was away has output, reply and idle for it, once each"""
    async with api.kernel() as kernel_id:
        session = uuid.uuid4().hex
        async with api.connect(kernel_id, session_id=session) as channel:
            await channel.execute("pass")
            msg_id = await channel.begin("import time; time.sleep(0.7); print('done')")
            await channel.gather(msg_id, until=lambda found: bool(found.of("execute_input")))
        await asyncio.sleep(0.2)
        await api.wait_state(kernel_id, "idle")
        async with api.connect(kernel_id, session_id=session) as channel:
            found = await channel.gather(msg_id)
        assert found.text == "done\n"


@case("websocket")
async def after_restart(api: Api) -> None:
    """A connection goes on through a restart"""
    async with api.kernel() as kernel_id, api.connect(kernel_id) as channel:
        await channel.execute("x = 1")
        answer = await api.ask("POST", f"api/kernels/{kernel_id}/restart")
        assert answer.status == 200
        assert (await channel.execute("print('x' in globals())")).text == "False\n"


@case("websocket")
async def crash(api: Api) -> None:
    """A kernel that crashes is started again, and its clients are told `restarting`"""
    async with api.kernel() as kernel_id, api.connect(kernel_id) as channel:
        await channel.execute("pass")
        await channel.begin("import os; os._exit(1)")
        for _ in range(50):
            message = await channel.receive()
            if message["content"].get("execution_state") in ("restarting", "autorestarting"):
                break
        else:
            raise AssertionError("nobody said restarting")


_OPEN = "The connection stays open, and nothing is ever said on it again."


@case("websocket", {JUPYTER_SERVER: _OPEN, KERNEL_GATEWAY: _OPEN})
async def closed_with_kernel(api: Api) -> None:
    """A kernel's connections are closed when it is ended"""
    kernel_id = (await api.start())["id"]
    async with api.connect(kernel_id) as channel:
        await channel.execute("pass")
        assert (await api.ask("DELETE", f"api/kernels/{kernel_id}")).status == 204
        await channel.closed()


@case("websocket")
async def ping(api: Api) -> None:
    """A websocket ping is answered"""
    async with api.connect(await api.shared_kernel()) as channel:
        await channel.socket.ping(b"are you there")
        assert (await channel.execute("print(1)")).text == "1\n"


@case("websocket")
async def nonsense(api: Api) -> None:
    """Nonsense on one connection leaves kernel and server well"""
    kernel_id = await api.shared_kernel()
    for framing, frames in ((V1, (b"abc",)), (LEGACY, ("{", '{"channel": 1}'))):
        for frame in frames:
            async with api.connect(kernel_id, framing=framing) as channel:
                if isinstance(frame, bytes):
                    await channel.socket.send_bytes(frame)
                else:
                    await channel.socket.send_str(frame)
            async with api.connect(kernel_id) as channel:
                assert (await channel.execute("print(2)")).text == "2\n"


@case("websocket")
async def unread_kernels(api: Api) -> None:
    """Ten connections at once are served"""
    kernel_id = await api.shared_kernel()

    async def one(number: int) -> str:
        async with api.connect(kernel_id) as channel:
            return (await channel.execute(f"print({number})")).text

    texts = await asyncio.gather(*(one(number) for number in range(10)))
    assert texts == [f"{number}\n" for number in range(10)]


_SPINS = (
    "It counts to that number in its event loop: one frame of a client stops the server, with all "
    "its kernels, for good."
)


@case("websocket", {JUPYTER_SERVER: _SPINS, KERNEL_GATEWAY: _SPINS}, last=True)
async def frame_of_endless_parts(api: Api) -> None:
    """A binary frame that claims 2^64 parts leaves kernel and server well"""
    kernel_id = await api.shared_kernel()
    async with asyncio.timeout(30):
        async with api.connect(kernel_id) as channel:
            await channel.socket.send_bytes(b"\xff" * 40)
        async with api.connect(kernel_id) as channel:
            assert (await channel.execute("print(3)")).text == "3\n"
