"""What jupyter_server makes for each notebook websocket: it only joins the two sides.

Unlike jupyter_server's own gateway connection it lets the notebook choose the v1 framing
(``kernel_ws_protocol`` stays None), so messages pass unparsed.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.base import BaseKernelWebsocketConnection

from holdfast_protocol.errors import FrameError

from ..stream.browser import BrowserLeg
from ..stream.kernel_stream import KernelStream
from .client import HoldfastGatewayClient


class HoldfastWebSocketConnection(BaseKernelWebsocketConnection):
    """Joins a notebook's websocket to the stream of its kernel and session."""

    _leg: BrowserLeg | None = None
    _stream: KernelStream | None = None

    async def connect(self) -> None:
        """The notebook's websocket is open."""
        streams = HoldfastGatewayClient.instance().streams
        self._leg = BrowserLeg(self.websocket_handler, on_proven=self._proven, log=self.log)
        self._stream = streams.enter(str(self.kernel_id), str(self.session_id))
        self._stream.attach(self._leg)

    def disconnect(self) -> None:  # type: ignore[override] # jupyter_server calls it so in every version
        """The notebook's websocket is gone; its stream stays for its return."""
        leg, stream = self._leg, self._stream
        self._leg = self._stream = None
        if leg is None or stream is None:
            return
        stream.detach(leg)
        resumable = bool(self.websocket_handler.get_argument("session_id", None))
        HoldfastGatewayClient.instance().streams.leave(stream, resumable=resumable)

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """A message of the notebook, text or bytes, in the framing that it chose."""
        if self._leg is None or self._stream is None:
            return
        try:
            message = self._leg.parse(incoming_msg)
        except FrameError as error:
            self.log.warning("holdfast: refused a malformed message of a notebook: %s", error)
            return
        self._stream.from_notebook(message)

    @classmethod
    async def close_all(cls) -> None:
        """jupyter_server stops. Called by it from 2.8 on."""
        await HoldfastGatewayClient.instance().stop()

    def _proven(self, leg: BrowserLeg, index: int) -> None:
        if self._stream is not None and self._leg is leg:
            self._stream.proven(index)
