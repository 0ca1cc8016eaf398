"""REST calls, recorded with their answers. None is repeated here: that is the caller's business."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from support.chaos.history import Answered, Called, Recorder

_PATHS = {
    "start": ("POST", "/api/kernels"),
    "list": ("GET", "/api/kernels"),
    "get": ("GET", "/api/kernels/{kernel}"),
    "delete": ("DELETE", "/api/kernels/{kernel}"),
    "restart": ("POST", "/api/kernels/{kernel}/restart"),
    "interrupt": ("POST", "/api/kernels/{kernel}/interrupt"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` 0: no answer came."""

    status: int
    body: Any


async def call(
    recorder: Recorder,
    http: aiohttp.ClientSession,
    url: str,
    action: str,
    *,
    client: str,
    kernel: str = "",
    seconds: float = 60.0,
) -> Answer:
    """Make one call and note both ends of it. ``client``: ``shim``, ``plain`` or ``prober``."""
    number = recorder.next_call()
    method, path = _PATHS[action]
    recorder.write(
        Called(at=recorder.now(), call=number, client=client, action=action, kernel=kernel)
    )
    body = {"name": "python3"} if action == "start" else {}
    if action == "start" and client != "shim":
        body["env"] = {"KERNEL_ID": kernel}  # type: ignore[assignment]
    status, value, detail = 0, None, ""
    try:
        async with http.request(
            method,
            f"{url}{path.format(kernel=kernel)}",
            json=body if method == "POST" else None,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            text = await response.text()
            status, detail = response.status, "" if response.status < 300 else text[:300]
            value = json.loads(text) if text and response.status < 300 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        status, detail = 0, f"{type(error).__name__} {error}"
    except asyncio.CancelledError:
        recorder.write(Answered(at=recorder.now(), call=number, status=0, detail="given up"))
        raise
    ids = tuple(item["id"] for item in value) if isinstance(value, list) else ()
    if action == "start" and isinstance(value, dict):
        ids = (value["id"],)
    recorder.write(
        Answered(at=recorder.now(), call=number, status=status, kernels=ids, detail=detail)
    )
    return Answer(status, value)
