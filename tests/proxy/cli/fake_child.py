"""A program that behaves as a proxy, a launcher, etcd or a lab does towards its supervisor.

Run as a script by the tests of `holdfast up`. It listens, writes its ready file and ends at
SIGTERM, unless it is told to misbehave. Kernels are files in ``--kernels``: listed and deleted
over HTTP as a proxy does.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import signal
import sys
import threading
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready", type=Path)
    parser.add_argument("--journal", type=Path, help="append a line at start and at SIGTERM")
    parser.add_argument("--kernels", type=Path)
    parser.add_argument("--fail-while", type=Path, help="exit at once while this file exists")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--orphan", type=Path, help="leave a grandchild; write its pid here")
    return parser.parse_args()


class Handler(http.server.BaseHTTPRequestHandler):
    kernels: Path | None = None

    def do_GET(self) -> None:
        names = sorted(file.name for file in self.kernels.iterdir()) if self.kernels else []
        self._answer(200, json.dumps([{"id": name} for name in names]).encode())

    def do_DELETE(self) -> None:
        assert self.kernels is not None
        (self.kernels / self.path.rsplit("/", 1)[1]).unlink()
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the journal is what tests read."""


def note(args: argparse.Namespace, what: str) -> None:
    if args.journal:
        with args.journal.open("a") as stream:
            stream.write(f"{args.name} {what} {os.getpid()}\n")


def leave_orphan(file: Path) -> None:
    """A process in a session of its own whose parent ends: only a subreaper sees it again."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(  # noqa: S606 - no shell is wanted around it
                "/bin/sh", ["sh", "-c", f"echo $$ > {file}; exec sleep 600"]
            )
        os._exit(0)
    os.wait()


def main() -> None:
    args = parse()
    note(args, "started")
    if args.fail_while and args.fail_while.exists():
        print(f"{args.name} cannot run: told to fail", file=sys.stderr)
        raise SystemExit(3)
    stop = threading.Event()

    def on_term(number: int, frame: object) -> None:
        note(args, "asked")
        if not args.ignore_term:
            stop.set()

    signal.signal(signal.SIGTERM, on_term)
    if args.orphan:
        leave_orphan(args.orphan)
    Handler.kernels = args.kernels
    server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    # A signal that another thread takes (after SIGCONT any may) would not wake this one's wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if args.ready:
        ready = {"id": args.name, "pid": os.getpid(), "url": f"http://127.0.0.1:{args.port}"}
        draft = args.ready.with_suffix(".draft")
        draft.write_text(json.dumps(ready))
        draft.replace(args.ready)
    stop.wait()
    server.shutdown()


if __name__ == "__main__":
    main()
