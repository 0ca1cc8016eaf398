"""A keeper as its clients reach it: through a proxy, which may be another one each time."""

from __future__ import annotations

from typing import Any

import aiohttp

from support.cluster import Cluster


class ProxyDoor:
    """Stands for the keeper of ``kernel_id`` where ``keeper_clients`` want one. ``proxy``: which
    one the next websocket goes through."""

    def __init__(self, cluster: Cluster, http: aiohttp.ClientSession, kernel_id: str) -> None:
        self.cluster = cluster
        self.http = http
        self.kernel_id = kernel_id
        self.proxy = 0

    async def websocket(
        self, session_id: str | None, *protocols: str, **options: Any
    ) -> aiohttp.ClientWebSocketResponse:
        url = f"{self.cluster.proxy_urls[self.proxy]}/api/kernels/{self.kernel_id}/channels"
        return await self.http.ws_connect(
            url,
            params={} if session_id is None else {"session_id": session_id},
            headers={"Authorization": f"token {self.cluster.token}"},
            protocols=protocols,
            autoping=False,
            max_msg_size=0,
            **options,
        )
