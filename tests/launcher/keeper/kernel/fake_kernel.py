"""A tiny kernel that is not ipykernel: a plain PUB without welcome, obeying one-line orders.

Run with a connection file and, optionally, a send high-water mark for iopub. The code of an
execute_request is an order, see ``Kernel.order``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import zmq
from jupyter_client.session import Session


class Kernel:
    def __init__(self, path: str, mark: int) -> None:
        with open(path) as file:
            info = json.load(file)
        self.session = Session(key=info["key"].encode())
        context = zmq.Context()
        self.sockets = {}
        for name in ("shell", "control", "stdin", "iopub"):
            socket = context.socket(zmq.PUB if name == "iopub" else zmq.ROUTER)
            socket.linger = 500
            if name == "iopub":
                socket.sndhwm = mark
            joint = "-" if info["transport"] == "ipc" else ":"
            socket.bind(f"{info['transport']}://{info['ip']}{joint}{info[name + '_port']}")
            self.sockets[name] = socket
        self.hung = False
        self.parent: dict = {}

    def publish(self, msg_type: str, content: dict) -> None:
        self.session.send(self.sockets["iopub"], msg_type, content, parent=self.parent)

    def stream(self, text: str) -> None:
        self.publish("stream", {"name": "stdout", "text": text})

    def run(self) -> None:
        poller = zmq.Poller()
        for name in ("shell", "control"):
            poller.register(self.sockets[name], zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self.sockets["control"] in ready:
                self.serve("control")
            elif not self.hung:
                self.serve("shell")
            else:
                time.sleep(0.01)

    def serve(self, channel: str) -> None:
        identity, message = self.session.recv(self.sockets[channel], mode=0)
        before, self.parent = self.parent, message
        kind = message["msg_type"]
        self.publish("status", {"execution_state": "busy"})
        content = {"status": "ok"}
        if kind == "kernel_info_request":
            content |= {"implementation": "fake", "protocol_version": "5.3"}
        elif kind == "interrupt_request":
            self.hung = False
            self.stream("interrupted")
        elif kind == "execute_request":
            self.order(message["content"]["code"])
        if not (kind == "execute_request" and message["content"]["code"] == "no answer"):
            reply = kind.replace("_request", "_reply")
            self.session.send(self.sockets[channel], reply, content, message, ident=identity)
        self.publish("status", {"execution_state": "idle"})
        if kind == "shutdown_request":
            sys.exit(0)
        self.parent = before if channel == "control" else {}

    def order(self, code: str) -> None:
        verb, _, rest = code.partition(" ")
        if verb == "say":
            self.stream(rest)
        elif verb == "publish":  # publish <count> <bytes>
            count, size = map(int, rest.split())
            for number in range(count):
                self.stream(f"{number} " + "x" * size)
        elif verb == "skip":  # as a PUB at its mark does: numbers that nobody receives
            self.session.message_count += int(rest)
        elif verb == "hang":
            self.hung = True
        elif verb == "forge":
            stranger = Session(key=b"another key")
            stranger.send(self.sockets["iopub"], "stream", {"text": "forged"}, parent=self.parent)
        elif verb == "exit":
            self.stream("last words")
            time.sleep(0.05)  # a PUB's bytes are written by another thread
            os._exit(int(rest))
        elif verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Kernel(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000).run()
