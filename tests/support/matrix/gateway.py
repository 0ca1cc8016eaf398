"""Holdfast's REST as a plain client or an administrator uses it, at one proxy of several.

A lifecycle call is repeated while the answer is 503 with Retry-After, as that asks for; any other
refusal is the test's failure. Each repeated call carries the same request id.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Answer:
    """The last answer to a call that was repeated, and how it was until then."""

    status: int
    body: Any
    #: From the first attempt to the answer.
    seconds: float
    #: How often it was told to come again.
    waits: int


class Gateway:
    """One proxy's REST, or a load balancer's (``balanced``), whose own 503 names no time when the
    call may have been carried out: ours have ids that make it safe to repeat them."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, balanced: bool = False) -> None:
        self._http, self.url, self._balanced = http, url, balanced

    def __repr__(self) -> str:
        return f"<Gateway {self.url}>"

    async def once(self, method: str, path: str, **options: Any) -> tuple[int, Any, str | None]:
        """One attempt: status, body and Retry-After; status 0 when there is no connection."""
        try:
            async with self._http.request(method, self.url + path, **options) as response:
                text = await response.text()
                return response.status, _parsed(text), response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError):
            return 0, None, None

    async def call(
        self,
        method: str,
        path: str,
        *,
        within: float = 60.0,
        others: Sequence[Gateway] = (),
        **options: Any,
    ) -> Answer:
        """Until it is carried out. Where a connection ends, one of ``others`` is asked on.

        Raises AssertionError for a refusal that says no Retry-After.
        """
        headers = {"Holdfast-Request": uuid.uuid4().hex}
        began = time.monotonic()
        waits = 0
        gateways = itertools.cycle([self, *others])
        gateway = next(gateways)
        while True:
            status, body, after = await gateway.once(method, path, headers=headers, **options)
            seconds = time.monotonic() - began
            if 200 <= status < 300 or (method == "DELETE" and status == 404 and waits):
                return Answer(status, body, seconds, waits)
            if status == 0 and others:
                gateway, after = next(gateways), "0.05"
            else:
                assert status == 503, f"{method} {path}: {status} {body}"
            if after is None and self._balanced:
                after = "0.2"
            assert after is not None, f"{method} {path}: 503 without Retry-After: {body}"
            assert seconds < within, f"{method} {path}: not within {within} s: {body}"
            waits += 1
            await asyncio.sleep(min(float(after), 0.2))

    async def start(self, kernel_id: str | None = None, *, others: Sequence[Gateway] = ()) -> str:
        """Start a kernel; its id."""
        body = {"env": {"KERNEL_ID": kernel_id or str(uuid.uuid4())}}
        answer = await self.call("POST", "/api/kernels", others=others, json=body)
        return str(answer.body["id"])

    async def delete(self, kernel_id: str, *, others: Sequence[Gateway] = ()) -> None:
        await self.call("DELETE", f"/api/kernels/{kernel_id}", others=others)

    async def restart(self, kernel_id: str) -> Answer:
        return await self.call("POST", f"/api/kernels/{kernel_id}/restart")

    async def row(self, kernel_id: str) -> dict[str, Any]:
        """The kernel as administrators see it."""
        status, body, _ = await self.once("GET", "/holdfast/v1/cluster")
        assert status == 200, body
        found = [kernel for kernel in body["kernels"] if kernel["id"] == kernel_id]
        return dict(found[0]) if found else {}

    async def wait_row(
        self, kernel_id: str, *, seconds: float = 60.0, **expected: object
    ) -> dict[str, Any]:
        """Until the kernel's row has these values."""
        row: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    row = await self.row(kernel_id)
                    if row and all(row[name] == value for name, value in expected.items()):
                        return row
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{kernel_id}: {row} where {expected} was awaited") from None

    async def timeline(self, kernel_id: str) -> list[dict[str, Any]]:
        status, body, _ = await self.once("GET", "/holdfast/v1/cluster?timeline=2000")
        assert status == 200, body
        return [line for line in body["timeline"] if line["kernel"] == kernel_id]


def _parsed(text: str) -> Any:
    """What a proxy says is JSON; a load balancer's own errors are not."""
    try:
        return json.loads(text)
    except ValueError:
        return text or None


@asynccontextmanager
async def gateways(
    urls: list[str], token: str, *, balanced: bool = False
) -> AsyncIterator[list[Gateway]]:
    """One for each proxy."""
    headers = {"Authorization": f"token {token}"}
    limits = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers=headers, timeout=limits) as http:
        yield [Gateway(http, url, balanced=balanced) for url in urls]
