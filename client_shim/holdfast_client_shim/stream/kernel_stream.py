"""One session of one kernel: what lies between a notebook's websocket and the keeper.

It outlives both: browser websockets come and go on one side, gateway websockets on the other.
The rules are ``ClientStream``'s (once in, complete out) and ``Outbox``'s (what the notebook has);
this class carries bytes between them, keeps the connection up, and tells the user what no one
else can tell. It must not know jupyter_server: a notebook is any ``Notebook``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from logging import Logger
from typing import Final

from holdfast_protocol.errors import CloseCode, FrameError, LocalError, RemoteError
from holdfast_protocol.frames import CHUNK_BYTES, NO_EPOCH, Bye, ByeReason
from holdfast_protocol.jupyter import channel_of_v1
from holdfast_protocol.stream.client import (
    ByeReceived,
    ClientStream,
    Delivered,
    EpochChanged,
    Event,
    GapSeen,
    Predecessor,
    StreamResumed,
)

from ..gateway.upstream import Loss, Upstream
from .lifeline import Gateway, Lifeline, Verdict
from .monitor import StreamMonitor
from .notices import OpenRequests, dead, failures, lifecycle_state
from .outbox import Item, Notebook, Outbox
from .record import ACCEPTED, RequestRecord, StreamRecord
from .uplink import Uplink

#: Bytes given to a notebook without its proof before the gateway is no longer read.
WINDOW_BYTES: Final = 16 * 1024 * 1024
ACK_DELAY: Final = 0.05
_UNFIT_FOR_A_HEADER: Final = re.compile(r"[^\x21-\x7e]")
_NO_REPLAY: Final = "this gateway cannot repeat what came while the connection was broken"
_MAY_BE_LOST: Final = (
    "the connection to the gateway broke, and this gateway cannot repeat what it lost: if nothing "
    "more comes here, run this again"
)
_PROTOCOL_FAULTS: Final = (CloseCode.SEQ_SKIPPED, CloseCode.POSITION)


class KernelStream:
    """``gone`` is called once, with this stream, when it is of no use any more; ``noted`` when
    ``record`` would say something else about its requests. ``former``: what a process before
    this one left of the session, which is then taken up."""

    def __init__(
        self,
        *,
        kernel_id: str,
        session_id: str,
        gateway: Gateway,
        monitor: StreamMonitor,
        log: Logger,
        gone: Callable[[KernelStream], None],
        noted: Callable[[], None] = lambda: None,
        former: StreamRecord | None = None,
    ) -> None:
        self.kernel_id = kernel_id
        self.session_id = session_id
        self.monitor = monitor
        self._log = log
        self._gone = gone
        self._noted = noted
        self._former = former
        self._lifeline = Lifeline(
            kernel_id=kernel_id, session_id=session_id, gateway=gateway, owner=self,
            monitor=monitor, log=log,
        )  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._notebook: Notebook | None = None
        self._outbox = Outbox()
        self._requests = OpenRequests()
        known = former if former is not None and former.epoch != NO_EPOCH else None
        self._uplink = Uplink(None if known is None else Predecessor(known.epoch, known.position))
        self._upstream: Upstream | None = None
        self._bye: Bye | None = None
        self._numbered = asyncio.Event()
        self._dead_told = False
        self._ended = False
        self._ack_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return (
            f"<KernelStream {self.kernel_id} {self.session_id} {self._uplink!r} "
            f"{self._upstream!r} {self._outbox!r} open={len(self._requests)}>"
        )

    # the notebook's side

    @property
    def attached(self) -> bool:
        return self._notebook is not None

    @property
    def idle(self) -> bool:
        """No notebook, and nothing of one left to deliver to the kernel."""
        return self._notebook is None and not self._uplink.pending_bytes

    @property
    def connecting(self) -> bool:
        """Whether it has, or is to have, a connection to a gateway."""
        return self._lifeline.running

    def record(self) -> StreamRecord:
        """What a successor needs if this process dies now."""
        unaccepted = self._uplink.unaccepted()
        requests = tuple(
            RequestRecord(channel, header, unaccepted.get(msg_id, ACCEPTED))
            for msg_id, channel, header in self._requests.entries()
        )
        former, stream = self._former, self._uplink.stream
        position = 0 if stream is None else stream.consumed_up_to
        if former is not None:
            requests, position = former.requests + requests, former.position
        return StreamRecord(self.kernel_id, self.session_id, self._uplink.epoch, position, requests)

    def attach(self, notebook: Notebook) -> None:
        """A notebook has come (back): give it what it does not provably have, and go on."""
        if self._notebook is not None and self._notebook is not notebook:
            self._notebook.close(CloseCode.GONE, "another websocket took this session over")
        self._notebook = notebook
        self._write(self._outbox.replay())
        if not self._ended:
            self._lifeline.start()
        self._pace()

    def detach(self, notebook: Notebook) -> None:
        """The notebook's websocket is gone; nothing happens if another one took over."""
        if self._notebook is notebook:
            self._notebook = None
            self._suspend_if_idle()

    def from_notebook(self, message: bytes) -> None:
        """Take one message (v1) for the kernel: it goes out once, now or after an outage."""
        try:
            self._requests.sent(message)
            if channel_of_v1(message) == "stdin":
                self._outbox.input_answered()
        except FrameError as error:
            self._log.warning("holdfast: refused a malformed message of a notebook: %s", error)
            return
        try:
            self._uplink.send(message)
        except LocalError as error:
            self._say(self._requests.fail(message, f"not sent: {error}"))
        self._flush()
        self._noted()

    def proven(self, index: int) -> None:
        """The notebook surely has everything up to ``index``."""
        seq = self._outbox.prove(index)
        if seq is None:
            return
        stream = self._uplink.stream
        if stream is not None:
            stream.consumed(seq)
            if stream.ack_due:
                self._send_ack()
            elif self._ack_timer is None:
                self._ack_timer = self._loop.call_later(ACK_DELAY, self._send_ack)
        self._pace()

    async def wait_numbered(self, timeout: float) -> None:
        """Return when messages that wait have final numbers, or after ``timeout`` seconds."""
        if self._uplink.plain or self.idle:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._numbered.wait(), timeout)

    def after(self) -> str | None:
        """``session:seq`` of the newest message, for ``Holdfast-After``; None if there is none."""
        stream = self._uplink.stream
        if stream is None or not stream.numbered or not stream.last_seq:
            return None
        if self._upstream is None and not stream.pending_bytes:
            # All was accepted. Saying so would make a keeper that has taken over since wait.
            return None
        if _UNFIT_FOR_A_HEADER.search(self.session_id):
            return None
        return f"{self.session_id}:{stream.last_seq}"

    def close(self) -> None:
        """Drop everything. Idempotent."""
        self._ended = True
        self._lifeline.stop()
        self.monitor.close()
        self._drop_upstream()

    # the gateway's side

    def message_received(self, payload: memoryview, *, text: bool) -> None:
        """A frame from the gateway."""
        machine = self._uplink.machine
        settling = self.monitor.settling
        try:
            if isinstance(machine, ClientStream):
                events: Sequence[Event] = machine.receive(payload)
            elif machine is not None:
                events = (machine.receive(payload, text=text),)
            else:
                return
        except RemoteError as error:
            self._refuse(error)
            return
        self._take(events)
        if settling and self.monitor.settling:
            # a chunk is no message yet, and only part of what a keeper gives at once
            size = len(payload) if events else CHUNK_BYTES
            self.monitor.received(size, sum(type(event) is Delivered for event in events))
        self._flush()
        self._pace()

    def connection_gone(self, loss: Loss) -> None:
        self._lifeline.connection_gone(loss)

    def may_write(self) -> None:
        self._flush()

    # the connection's life

    def opened(self, upstream: Upstream) -> bool:
        again = self._uplink.plain
        first = self._uplink.connect(upstream.subprotocol)
        if first is None:
            return False
        self._upstream = upstream
        for frame in first:
            upstream.send(frame)
        if self._uplink.plain:
            again = self._former is not None or again
            self._take_up_former()
            self._lifeline.useful()
            self.monitor.live(note=_NO_REPLAY, can_replay=False)
        elif again:
            self._outbox.new_epoch()  # we counted that ourselves; a keeper's numbers are others
        if again:
            self._say(self._requests.warn_all(_MAY_BE_LOST, but=self._uplink.unaccepted()))
        self._flush()
        self._pace()
        return True

    def closed(self, upstream: Upstream, loss: Loss) -> Verdict:
        """The connection is gone; the keeper's last word decides whether another may follow."""
        if self._upstream is upstream:
            self._drop_upstream()
        bye, self._bye = self._bye, None
        if bye is None or bye.come_back:
            return Verdict.AGAIN
        text = bye.detail or bye.reason.name.lower()
        if loss.code in _PROTOCOL_FAULTS and self._former is not None:
            # our note of its place was older than the keeper's own
            self._uplink.start_over()
            return Verdict.AT_ONCE
        if loss.code in _PROTOCOL_FAULTS or bye.reason is ByeReason.EXPIRED:
            self._log.warning("holdfast: the keeper of %s forgot us: %s", self.kernel_id, text)
            self._say(self._requests.fail_all(f"the answer is lost: {text}"))
            self._outbox.new_epoch()
            self._uplink.start_over()
            self._noted()
            return Verdict.AGAIN
        self._finish(text, is_dead=bye.reason is ByeReason.GONE)
        return Verdict.OVER

    def over(self, reason: str, *, failed: bool) -> None:
        self._finish(reason, is_dead=not failed)

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        self._uplink.disconnected()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None

    def _suspend_if_idle(self) -> None:
        if self.idle:
            self._lifeline.stop()
            self._drop_upstream()

    # what comes

    def _take(self, events: Sequence[Event]) -> None:
        batch: list[Item] = []
        for event in events:
            if type(event) is Delivered:
                if self._requests.received(event.message):
                    self._noted()
                self._dead_told = self._dead_told or lifecycle_state(event.message) == "dead"
                batch.append(self._outbox.append(event.seq, event.message))
                continue
            self._write(batch)
            batch = []
            self._handle(event)
        self._write(batch)

    def _handle(self, event: Event) -> None:
        if isinstance(event, StreamResumed):
            self._numbered.set()
            self._take_up_former()
            self._lifeline.useful()
            self.monitor.live()
            self._noted()
        elif isinstance(event, EpochChanged):
            self._take_new_epoch(event.failed)
        elif isinstance(event, GapSeen):
            lost = f"{event.count} messages lost ({event.first} to {event.last}): {event.reason}"
            self._log.warning("holdfast: kernel %s: %s", self.kernel_id, lost)
            self.monitor.lost(event.count)
            self._say(event.notices)
        elif isinstance(event, ByeReceived):
            self._bye = event.bye

    def _take_new_epoch(self, failed: Sequence[bytes]) -> None:
        """No keeper knows the requests of another epoch, so nobody else can close their cells."""
        text = "the answer is lost: what watches over the kernel was replaced; it may still run"
        if self._former is not None:
            # what came since is ours, and goes out to the new one
            former, self._former = self._former, None
            self._say(failures(former.requests, text))
            return
        self._outbox.new_epoch()
        for message in failed:
            why = "what watches over the kernel was replaced; this may not have reached the kernel"
            self._say(self._requests.fail(message, why))
        self._say(self._requests.fail_all(text))

    def _take_up_former(self) -> None:
        """The first contact after this server was restarted."""
        former, self._former = self._former, None
        if former is not None:
            stream = self._uplink.stream
            self._say(self._requests.take_over(former, stream.accepted if stream else None))

    def _refuse(self, error: RemoteError) -> None:
        self._log.error("holdfast: kernel %s: %s", self.kernel_id, error)
        if self._upstream is not None:
            self._upstream.abandon(error.close_code, str(error))
        self.connection_gone(Loss(int(error.close_code), str(error)))

    # what goes

    def _flush(self) -> None:
        upstream = self._upstream
        if upstream is not None:
            while upstream.writable and (frame := self._uplink.next_frame()) is not None:
                upstream.send(frame)
        if self._notebook is None:
            self._suspend_if_idle()

    def _send_ack(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if self._upstream is not None and self._uplink.stream is not None:
            ack = self._uplink.stream.take_ack()
            if ack is not None:
                self._upstream.send(ack)

    def _write(self, items: Sequence[Item]) -> None:
        if items and self._notebook is not None and self._notebook.write(items):
            self._outbox.written(items[-1].index)

    def _say(self, messages: Sequence[bytes]) -> None:
        position = self._uplink.position
        self._write([self._outbox.append(position, message) for message in messages])

    def _pace(self) -> None:
        """Read the gateway only as fast as the notebook proves to take it."""
        if self._upstream is None:
            return
        if self._outbox.bytes > WINDOW_BYTES:
            self._upstream.pause()
        elif self._outbox.bytes < 3 * WINDOW_BYTES // 4:
            self._upstream.resume()

    def _finish(self, reason: str, *, is_dead: bool = True) -> None:
        self._ended = True
        former, self._former = self._former, None
        self._say([] if former is None else failures(former.requests, reason))
        self._say(self._requests.fail_all(reason))
        if is_dead and not self._dead_told:
            self._say([dead(reason)])
        if self._notebook is not None:
            self._notebook.close(CloseCode.GONE, reason)
        self.monitor.gone(reason)
        self._gone(self)
