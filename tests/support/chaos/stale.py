"""The planted stale call: what a proxy would do that woke up after its kernels were taken over.

It asks a keeper to restart its kernel under a token below the one that the keeper has
acknowledged. A keeper answers 412; with the plant (`inside.keeper`) it obeys, and the checker
must see that.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp

from support.chaos.site import SMALL, Site

_TRIES = 60


async def call_with_stale_token(site: Site) -> int:
    """The status of the answer. Raises TimeoutError when no keeper on loopback comes up."""
    for _ in range(_TRIES):
        for path in _keepers(site):
            fence = path.with_name("fence.json")
            if fence.exists():
                return await _restart(json.loads(path.read_text()), json.loads(fence.read_text()))
        await asyncio.sleep(0.5)
    raise TimeoutError("no keeper to send a stale call to")


def _keepers(site: Site) -> list[Path]:
    kernels = site.launcher_configs[SMALL].with_suffix("") / "kernels"
    return sorted(kernels.glob("*/keeper.json"))


async def _restart(keeper: dict[str, object], fence: dict[str, list[int]]) -> int:
    endpoint = keeper["endpoint"]
    assert isinstance(endpoint, dict)
    era, revision = fence["fence"]
    headers = {
        "Authorization": f"Bearer {keeper['credential']}",
        "Holdfast-Fence": f"{era}.{revision - 1}",
    }
    url = f"http://{endpoint['host']}:{endpoint['port']}/v1/restart"
    async with aiohttp.ClientSession() as http, http.post(url, headers=headers) as response:
        return response.status
