"""A kernel behind a gateway as ``jupyter_kernel_test`` wants one: a blocking client and a manager.

Requests are made by jupyter_client's own code, so that only the way of a message differs from a
local kernel's: the standard websocket subprotocol instead of ZMQ.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from typing import Any

import requests
import websocket
from jupyter_client.client import KernelClient
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)

V1 = "v1.kernel.websocket.jupyter.org"
_PARTS = ("header", "parent_header", "metadata", "content")


class WebsocketChannel:
    """One of a kernel's channels: a queue of what came, and a way to send."""

    def __init__(self, owner: WebsocketKernelClient, name: str) -> None:
        self._owner = owner
        self._name = name
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()

    def send(self, message: dict[str, Any]) -> None:
        self._owner.send(self._name, message)

    def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message. Raises queue.Empty, as jupyter_client's channels do."""
        return self.messages.get(timeout=timeout)

    def msg_ready(self) -> bool:
        return not self.messages.empty()

    def is_alive(self) -> bool:
        return True


class WebsocketKernelClient(KernelClient):
    """Speaks to the kernel at ``url`` (http) by one websocket; a thread reads it."""

    def __init__(self, url: str, token: str, kernel_id: str) -> None:
        super().__init__()
        self._channels = {
            name: WebsocketChannel(self, name) for name in ("shell", "iopub", "stdin", "control")
        }
        address = url.replace("http", "ws", 1)
        self._socket = websocket.create_connection(
            f"{address}/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}",
            header={"Authorization": f"token {token}"},
            subprotocols=[V1],
            timeout=60,
        )
        self._reader = threading.Thread(target=self._read, name="websocket reader", daemon=True)
        self._reader.start()

    @property
    def shell_channel(self) -> WebsocketChannel:
        return self._channels["shell"]

    @property
    def iopub_channel(self) -> WebsocketChannel:
        return self._channels["iopub"]

    @property
    def stdin_channel(self) -> WebsocketChannel:
        return self._channels["stdin"]

    @property
    def control_channel(self) -> WebsocketChannel:
        return self._channels["control"]

    def get_shell_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return self.shell_channel.get_msg(timeout)

    def get_iopub_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return self.iopub_channel.get_msg(timeout)

    def send(self, channel: str, message: dict[str, Any]) -> None:
        parts = [json.dumps(message[part], default=str).encode() for part in _PARTS]
        self._socket.send_binary(serialize_msg_to_ws_v1(parts, channel))

    def stop_channels(self) -> None:
        self._socket.close()
        self._reader.join(timeout=30)
        assert not self._reader.is_alive()

    def _read(self) -> None:
        while True:
            try:
                frame = self._socket.recv()
            except (websocket.WebSocketException, OSError):
                return
            if not frame:
                return
            channel, parts = deserialize_msg_from_ws_v1(frame)
            message = {name: json.loads(parts[n]) for n, name in enumerate(_PARTS)}
            message["msg_type"] = message["header"]["msg_type"]
            message["msg_id"] = message["header"]["msg_id"]
            message["buffers"] = parts[4:]
            self._channels[channel].messages.put(message)


class RemoteKernel:
    """The manager's part: starts a kernel by REST and ends it."""

    def __init__(self, url: str, token: str, kernel_name: str) -> None:
        self._url, self._headers = url, {"Authorization": f"token {token}"}
        answer = requests.post(
            f"{url}/api/kernels", json={"name": kernel_name}, headers=self._headers, timeout=90
        )
        answer.raise_for_status()
        self.kernel_id = answer.json()["id"]

    def shutdown_kernel(self) -> None:
        """End it and wait until that is proven."""
        address = f"{self._url}/api/kernels/{self.kernel_id}"
        requests.delete(address, headers=self._headers, timeout=60).raise_for_status()
        deadline = time.monotonic() + 60
        while requests.get(address, headers=self._headers, timeout=60).status_code != 404:
            assert time.monotonic() < deadline, "the kernel is still there"
            time.sleep(0.1)
