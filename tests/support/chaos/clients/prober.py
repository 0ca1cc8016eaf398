"""Asks the proxies in turn for the list of kernels, to see whether it is ever partial."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from support.chaos.history import Recorder

from .rest import call

_PAUSE = 0.4


async def probe_lists(
    recorder: Recorder, proxies: Sequence[str], token: str, stop: asyncio.Event
) -> None:
    """Until ``stop`` is set."""
    headers = {"Authorization": f"token {token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        n = 0
        while not stop.is_set():
            n += 1
            url = proxies[n % len(proxies)]
            await call(recorder, http, url, "list", client="prober", seconds=20)
            await asyncio.sleep(_PAUSE)
