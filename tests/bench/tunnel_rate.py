"""How much one proxy's tunnel moves per second of its own CPU time.

``python -m bench.tunnel_rate``, run from ``tests/``. A keeper process writes websocket frames as
fast as it can, a client reads them, and the proxy between them is a real one with a fake cluster
behind it; its CPU time is read from ``/proc``. Prints one line per case. For comparison, measured
once on two cores: HAProxy with one thread moves 210-340k small frames or 1.0-1.2 GB per CPU second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support.fake_keeper import CREDENTIAL, Certificate, RawKeeper

KERNEL = "11111111-1111-4111-8111-111111111111"
TOKEN = "bench-token"
TICKS = os.sysconf("SC_CLK_TCK")


def frame(size: int) -> bytes:
    """An unmasked binary websocket frame with ``size`` bytes of payload."""
    if size < 126:
        head = bytes([0x82, size])
    elif size < 65536:
        head = bytes([0x82, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x82, 127]) + size.to_bytes(8, "big")
    return head + bytes(size)


def keeper_process(pipe: Any, folder: str, secure: bool, size: int, count: int, burst: int) -> None:
    """Serve one tunnel: ``count`` frames, ``burst`` of them to a write, then the end."""

    async def serve() -> None:
        certificate = Certificate.make(Path(folder)) if secure else None
        async with RawKeeper(certificate=certificate) as keeper:
            pipe.send((keeper.endpoint.port, keeper.endpoint.fingerprint))
            channel = await keeper.channels.get()
            block = frame(size) * burst
            for _ in range(count // burst):
                channel.writer.write(block)
                await channel.writer.drain()
            channel.writer.close()
            await asyncio.Event().wait()  # until the parent ends us

    asyncio.run(serve())


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def receive_all(url: str) -> int:
    """Upgrade and read to the end; the bytes after the 101."""
    host, port = url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(
        f"GET /api/kernels/{KERNEL}/channels HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: token {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    buffer, total = bytearray(1 << 20), 0
    while n := sock.recv_into(buffer):
        total += n
    return total


def measure(name: str, *, size: int, count: int, burst: int, secure: bool) -> None:
    """One case: its own keeper, proxy and tunnel."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = multiprocessing.Pipe()
        keeper = multiprocessing.Process(
            target=keeper_process, args=(there, folder, secure, size, count, burst)
        )
        keeper.start()
        port, fingerprint = here.recv()
        config = Path(folder, "proxy.toml")
        config.write_text(f"port = 0\nready_file = 'ready.json'\ntoken = '{TOKEN}'\n")
        config.chmod(0o600)
        kernels = {KERNEL: ["127.0.0.1", port, fingerprint, CREDENTIAL]}
        proxy = subprocess.Popen(
            [sys.executable, "-m", "support.proxy_process", str(config)],
            env={**os.environ, "KERNELS": json.dumps(kernels)},
            stderr=subprocess.DEVNULL,
        )
        try:
            ready = Path(folder, "ready.json")
            while not ready.exists():
                time.sleep(0.02)
            before, started = cpu_seconds(proxy.pid), time.perf_counter()
            total = receive_all(json.loads(ready.read_text())["url"])
            wall = time.perf_counter() - started
            cpu = max(cpu_seconds(proxy.pid) - before, 1 / TICKS)
        finally:
            proxy.send_signal(signal.SIGKILL)
            proxy.wait()
            keeper.terminate()
            keeper.join()
    assert total >= count * size, "the tunnel lost bytes"
    sys.stdout.write(
        f"{name:34} {count / cpu / 1e3:8.0f} k frames/CPU s {total / cpu / 1e6:8.0f} MB/CPU s"
        f"   ({wall:.2f} s wall, {cpu:.2f} s CPU)\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="more or less of everything")
    scale = parser.parse_args().scale
    for secure in (False, True):
        leg = "TLS to keeper" if secure else "plain"
        small, large = int(400_000 * scale), max(1, int(200 * scale))
        measure(f"200 B, one to a write, {leg}", size=200, count=small, burst=1, secure=secure)
        measure(f"200 B, 50 to a write, {leg}", size=200, count=small, burst=50, secure=secure)
        measure(f"8 MiB, {leg}", size=8 << 20, count=large, burst=1, secure=secure)


if __name__ == "__main__":
    main()
