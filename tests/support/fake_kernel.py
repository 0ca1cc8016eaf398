"""A kernel side without a kernel: it obeys short commands in ``execute_request``.

``echo TEXT``, ``burst N SIZE``, ``big SIZE``, ``input``, ``hang`` (until interrupted), ``mute``
(as ``hang``, but the interrupt costs it its reply, as it happens with ipykernel), ``ran``
(every code that this incarnation ran, as JSON), ``crash``, ``die``, ``lose N``, ``quiet``
(accepts and never says a word). It is strict where the real one is: ``send`` outside of an
incarnation raises, and a start that is told to fails.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.keeper.ports import (
    KernelHost,
    KernelInfo,
    KernelListener,
    KernelStartFailed,
)
from holdfast_protocol.errors import InvalidState
from holdfast_protocol.jupyter import Message, encode_v1

BURST_STEP = 200


class FakeKernelHost(KernelHost):
    """Set ``start_gate`` to hold a start back, ``fail_start`` to make it fail."""

    def __init__(self, config: KeeperConfig | None, listener: KernelListener) -> None:
        self._listener = listener
        self._state = "starting"
        self._reason: str | None = None
        self._incarnation = 0
        self._ready = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._hanging: list[tuple[str, Message]] = []
        self._asking: dict[str, Message] = {}
        self.kernel_session = uuid.uuid4().hex
        self.sessions: set[str] = set()
        self.ran: list[str] = []
        self.starts = self.restarts = self.interrupts = 0
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        env = {} if config is None else config.env
        self.fail_start = env.get("FAKE_FAIL_START") == "1"
        self._delay = float(env.get("FAKE_READY_DELAY", "0"))

    def info(self) -> KernelInfo:
        session = self.kernel_session if self._incarnation else None
        return KernelInfo(self._incarnation, self._state, self._reason, None, session)

    def open_session(self, session_id: str) -> None:
        self.sessions.add(session_id)

    def close_session(self, session_id: str) -> None:
        self.sessions.discard(session_id)

    def send(self, session_id: str, message: Message) -> None:
        if not self._ready:
            raise InvalidState("no incarnation takes messages")
        if session_id not in self.sessions:
            raise InvalidState(f"session {session_id} is not open")
        if message.channel == "stdin":
            asked = self._asking.pop(session_id, None)
            if asked is not None:
                value = message.content_dict().get("value", "")
                self._finish(session_id, asked, f"got {value}")
            return
        self._publish(message, "status", {"execution_state": "busy"})
        self._set_state("busy")
        if message.msg_type != "execute_request":
            self._reply(session_id, message, {"status": "ok"})
            self._idle(message)
            return
        code = str(message.content_dict().get("code", ""))
        self.ran.append(code)
        self._publish(message, "execute_input", {"code": code, "execution_count": 1})
        self._run(session_id, message, code)

    async def start(self) -> None:
        self.starts += 1
        await self.start_gate.wait()
        if self.fail_start:
            raise KernelStartFailed("no kernel today", "Traceback: of the fake")
        await self._begin()

    async def interrupt(self) -> None:
        if not self._ready:
            raise InvalidState("nothing to interrupt")
        self.interrupts += 1
        hanging, self._hanging = self._hanging, []
        for session_id, message in hanging:
            if message.content_dict().get("code") != "mute":
                content = {"status": "error", "ename": "KeyboardInterrupt"}
                self._reply(session_id, message, content)
            self._idle(message)

    async def restart(self) -> None:
        self.restarts += 1
        self._end("starting", "asked to")
        await self._begin()

    async def shutdown(self, *, now: bool) -> None:
        if self._state != "dead":
            self._end("dead", "was shut down")

    # --- inside ---

    def _run(self, session_id: str, message: Message, code: str) -> None:
        word, _, rest = code.partition(" ")
        if word == "burst":
            count, _, size = rest.partition(" ")
            self._later(self._burst(session_id, message, int(count), int(size or 10)))
        elif word == "big":
            self._finish(session_id, message, "x" * int(rest))
        elif word == "input":
            self._asking[session_id] = message
            self._answer(session_id, message, "stdin", "input_request", {"prompt": "? "})
        elif word in ("hang", "mute"):
            self._hanging.append((session_id, message))
        elif word == "ran":
            self._finish(session_id, message, json.dumps(self.ran))
        elif word == "crash":
            self._end("restarting", "it crashed")
            self._later(self._begin())
        elif word == "die":
            self._end("dead", "it crashed too often")
        elif word == "lose":
            self._listener.lost(int(rest), "the kernel dropped them")
            self._finish(session_id, message, "after the loss")
        elif word != "quiet":
            self._finish(session_id, message, rest or code)

    async def _burst(self, session_id: str, message: Message, count: int, size: int) -> None:
        for number in range(count):
            text = f"{number} ".ljust(size, ".")
            self._publish(message, "stream", {"name": "stdout", "text": text})
            if number % BURST_STEP == 0:
                await asyncio.sleep(0)
        self._reply(session_id, message, {"status": "ok", "execution_count": 1})
        self._idle(message)

    async def _begin(self) -> None:
        self._incarnation += 1
        self._set_state("starting")
        if self._delay:
            await asyncio.sleep(self._delay)
        self.ran = []
        self._ready = True
        self._set_state("idle")
        self._listener.incarnation_ready(self._incarnation)

    def _end(self, state: str, reason: str) -> None:
        self._ready = False
        self._hanging.clear()
        self._asking.clear()
        self._reason = reason if state == "dead" else None
        self._state = state
        self._listener.incarnation_ended(self._incarnation, state, reason)
        self._listener.state_changed()

    def _set_state(self, state: str) -> None:
        self._state = state
        self._listener.state_changed()

    def _finish(self, session_id: str, message: Message, text: str) -> None:
        self._publish(message, "stream", {"name": "stdout", "text": text})
        self._reply(session_id, message, {"status": "ok", "execution_count": 1})
        self._idle(message)

    def _idle(self, message: Message) -> None:
        self._publish(message, "status", {"execution_state": "idle"})
        self._set_state("idle")

    def _reply(self, session_id: str, message: Message, content: dict[str, Any]) -> None:
        kind = message.msg_type.removesuffix("_request") + "_reply"
        self._answer(session_id, message, message.channel, kind, content)

    def _answer(
        self, session_id: str, message: Message, channel: str, kind: str, content: dict[str, Any]
    ) -> None:
        answer = self._message(channel, kind, message, content)
        self._listener.answered(session_id, encode_v1(answer), answer)

    def _publish(self, message: Message, kind: str, content: dict[str, Any]) -> None:
        published = self._message("iopub", kind, message, content)
        self._listener.published(encode_v1(published), published)

    def _message(
        self, channel: str, kind: str, parent: Message, content: dict[str, Any]
    ) -> Message:
        header = {
            "msg_id": uuid.uuid4().hex,
            "session": self.kernel_session,
            "msg_type": kind,
            "version": "5.3",
            "date": "2026-01-01T00:00:00.000000Z",
            "username": "kernel",
        }
        return Message.from_dicts(
            channel=channel, header=header, parent=parent.header_dict, content=content
        )

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
