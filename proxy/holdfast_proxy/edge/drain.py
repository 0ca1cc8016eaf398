"""How a proxy leaves: nobody loses anything, and everybody is told at once.

Order, and why (DESIGN section 5):

1. The listening sockets are closed by the caller before this begins, so that a client which is
   told to come back cannot come back here.
2. Keepers are asked to say BYE on our tunnels, all at once: this is what clients wait for.
   Standins close with "come back" themselves.
3. The cluster gives ownership up, while clients move.
4. What is still connected ``GRACE_SECONDS`` after the BYEs is cut; requests still in flight are
   answered 503.

Every step has a deadline: a keeper or an etcd that does not answer must not hold the exit up.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

import structlog

from ..cluster import KeeperEndpoint
from .context import Edge
from .tunnel.dial import DialError, connect

BYE_SECONDS: Final = 0.7
GRACE_SECONDS: Final = 0.1
CLUSTER_SECONDS: Final = 0.7
#: After so long the cluster does not wait any more for a keeper that is slow to say BYE.
_PATIENCE_SECONDS: Final = 0.15
_log: Final = structlog.get_logger("holdfast.drain")


async def drain(edge: Edge) -> None:
    """Move every client elsewhere and give ownership up. Never raises; call once."""
    edge.draining = True
    _log.info("draining", tunnels=len(edge.tunnels), standins=len(edge.standins))
    goodbye = asyncio.create_task(_say_goodbye(edge))
    await asyncio.wait({goodbye}, timeout=_PATIENCE_SECONDS)
    release = asyncio.create_task(_release(edge))
    told = await goodbye
    await asyncio.sleep(GRACE_SECONDS)
    edge.tunnels.abort_all()
    for task in list(edge.in_flight):
        task.cancel()
    await release
    _log.info("drained", keepers_told=told)


async def _say_goodbye(edge: Edge) -> int:
    calls = [_tell_keeper(keeper, ids) for keeper, ids in edge.tunnels.by_keeper().items()]
    standins = [
        asyncio.wait_for(standin.step_aside(), BYE_SECONDS) for standin in list(edge.standins)
    ]
    results = await asyncio.gather(*calls, *standins, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            _log.warning("a goodbye failed", error=repr(result))
    return sum(result is True for result in results)


async def _tell_keeper(endpoint: KeeperEndpoint, tunnel_ids: list[str]) -> bool:
    """POST /v1/drain; True when the keeper has answered 200."""
    body = json.dumps({"tunnels": tunnel_ids}).encode()
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    head = (
        f"POST /v1/drain HTTP/1.1\r\nHost: {host}:{endpoint.port}\r\n"
        f"Authorization: Bearer {endpoint.credential}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        async with asyncio.timeout(BYE_SECONDS):
            transport = await connect(endpoint, protocol)
            try:
                transport.write(head.encode() + body)
                status = await reader.readline()
            finally:
                transport.abort()
    except (DialError, OSError, TimeoutError) as error:
        _log.warning("keeper not told of the drain", kernel_id=endpoint.kernel_id, error=str(error))
        return False
    return status.startswith(b"HTTP/1.1 200")


async def _release(edge: Edge) -> None:
    try:
        async with asyncio.timeout(CLUSTER_SECONDS):
            await edge.cluster.drain()
    except Exception as error:
        # The exit goes on whatever it is: the lease expires by itself.
        _log.warning("ownership not given up; the lease will expire", error=repr(error))
