"""What a gap did to the cells of one session, and what is said about it.

A gap is told where it is: a cell whose end is still in the log is over for its front end before
anything that is logged now, and what comes for it after that is not shown. So the lines that say
"lost" never go through the log. They travel in a stream's GAP frame; to a plain client they are
written in the gap's place, again after each reconnect until a pong proves them.

What ended a cell and went with the gap is said once more, at the log's end.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from holdfast_protocol.jupyter import Message, encode_v1
from holdfast_protocol.log import Loss

from . import notices
from .notices import Notices
from .requests import RequestBook
from .sessions import Session

_log = structlog.get_logger(__name__)


class Losses:
    """``send`` logs a message for a session, its seq; ``kernel_session`` is in whose name."""

    def __init__(
        self,
        requests: RequestBook,
        writer: Notices,
        *,
        send: Callable[[str, Message], int],
        kernel_session: Callable[[], str],
    ) -> None:
        self._requests = requests
        self._writer = writer
        self._send = send
        self._kernel_session = kernel_session

    def notices(self, session_id: str, loss: Loss) -> list[bytes]:
        """A line (v1 framing) for every cell that the gap touched, for the gap's place."""
        kernel = self._kernel_session()
        return [
            encode_v1(self._writer.lost(kernel, touched.request, loss.count, loss.reason))
            for touched in self._requests.touched(session_id, loss)
        ]

    def close(self, session: Session, loss: Loss) -> None:
        """Its client is being told of the gap: end the cells whose end was in it. Idempotent."""
        if loss.last <= session.loss_shown:
            return
        session.loss_shown = loss.last
        kernel, name = self._kernel_session(), session.session_id
        _log.warning("session.gap", session=name, first=loss.first, last=loss.last, why=loss.reason)
        for touched in self._requests.touched(name, loss):
            request = touched.request
            if touched.reply_lost and request.expects_reply:
                failure = notices.gap(loss.count, loss.reason)
                reply = self._writer.error_reply(kernel, request, failure)
                request.reply_seq = self._send(name, reply)
            if touched.idle_lost:
                request.idle_seq = self._send(name, self._writer.idle(kernel, request))
