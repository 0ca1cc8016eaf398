"""jupyter_server's kernelspec manager, speaking through ``HoldfastGatewayClient``."""

# jupyter_server's managers have no annotations:
# mypy: disable-error-code="no-untyped-call, override"

from __future__ import annotations

import json
import os
from typing import Any

from jupyter_server.gateway.managers import GatewayKernelSpecManager
from jupyter_server.utils import url_path_join
from tornado import web

from .client import HoldfastGatewayClient, path_segment


def _client() -> HoldfastGatewayClient:
    client: HoldfastGatewayClient = HoldfastGatewayClient.instance()
    return client


class HoldfastKernelSpecManager(GatewayKernelSpecManager):
    """The kernelspecs that the gateway offers."""

    async def list_kernel_specs(self) -> Any:
        """Jupyter's kernelspecs model, with resources under this server's own base URL."""
        response = await _client().request("GET", self._endpoint())
        return self._replace_path_kernelspec_resources(json.loads(response.body))

    async def get_kernel_spec(self, kernel_name: str, **kwargs: Any) -> Any:
        """One kernelspec. Raises KeyError when there is none of this name."""
        path = self._endpoint(path_segment(str(kernel_name)))
        try:
            response = await _client().request("GET", path)
        except web.HTTPError as error:
            if error.status_code == 404:
                raise KeyError(f"no kernelspec {kernel_name} at the gateway") from None
            raise
        return json.loads(response.body)

    async def get_kernel_spec_resource(self, kernel_name: str, path: str) -> bytes | None:
        """A kernelspec's file, or None when there is none."""
        base = _client().kernelspecs_resource_endpoint
        try:
            response = await _client().request(
                "GET", url_path_join(base, path_segment(str(kernel_name)), str(path))
            )
        except web.HTTPError as error:
            if error.status_code == 404:
                return None
            raise
        return response.body

    @staticmethod
    def _endpoint(name: str = "") -> str:
        path = str(url_path_join(_client().kernelspecs_endpoint, name)).rstrip("/")
        user = os.environ.get("KERNEL_USERNAME")
        return f"{path}?user={path_segment(user)}" if user else path
