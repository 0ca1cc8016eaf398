"""Ending the kernels of the tree when it stops.

First by the front door, `DELETE /api/kernels/{id}` at a proxy, so that records say what happened;
then each launcher's `end-kernels`, which needs no proxy, no etcd and no agent and ends whatever
keepers its state directory still names. The second alone would do; the first makes the next
`holdfast up` begin with a clean list.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping, Sequence
from contextlib import suppress

import aiohttp


async def delete_by_proxy(urls: Sequence[str], token: str, *, timeout: float) -> bool:
    """Delete every kernel through the first proxy that answers; whether all were deleted.

    ``timeout`` seconds bound the whole of it.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            for url in urls:
                with suppress(aiohttp.ClientError, OSError, ValueError):
                    return await _delete_all(url, token)
    return False


async def end_by_launchers(
    argvs: Sequence[Sequence[str]], env: Mapping[str, str], *, timeout: float
) -> None:
    """Run each launcher's ``end-kernels``, side by side, for at most ``timeout`` seconds."""
    await asyncio.gather(*(_run(argv, env, timeout) for argv in argvs))


async def _delete_all(url: str, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        async with http.get(f"{url}/api/kernels") as answer:
            ids = [kernel["id"] for kernel in await answer.json()]
        ends = await asyncio.gather(
            *(_delete(http, f"{url}/api/kernels/{kernel_id}") for kernel_id in ids)
        )
    return all(ends)


async def _delete(http: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError, OSError):
        async with http.delete(url):
            return True
    return False


async def _run(argv: Sequence[str], env: Mapping[str, str], timeout: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, env=dict(env), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        await asyncio.wait_for(process.wait(), timeout)
    except TimeoutError:
        process.kill()
        await process.wait()
