"""Jupyter Server's own gateway classes, unchanged, against the edge."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import (
    GatewayKernelSpecManager,
    GatewayMappingKernelManager,
)
from tornado.web import HTTPError

from holdfast_proxy.errors import Unavailable
from support.edge_server import TOKEN, EdgeServer, serve_edge
from support.fake_cluster import FakeCluster


@pytest.fixture(autouse=True)
def fresh_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    GatewayClient.clear_instance()
    monkeypatch.setenv("KERNEL_TEAM", "blue")
    monkeypatch.setenv("KERNEL_USERNAME", "notebook-user")
    yield
    GatewayClient.clear_instance()


def point_to(server: EdgeServer) -> None:
    client = GatewayClient.instance()
    client.url = server.url.rstrip("/")
    client.auth_token = TOKEN


async def test_a_kernels_life_as_jupyter_server_lives_it(cluster: FakeCluster) -> None:
    async with serve_edge(cluster) as server:
        point_to(server)
        manager = GatewayMappingKernelManager()
        kernel_id = await manager.start_kernel(kernel_name="python3")
        assert str(uuid.UUID(kernel_id)) == kernel_id
        (start,) = cluster.starts
        assert (start.spec_name, start.env["KERNEL_TEAM"]) == ("python3", "blue")
        assert start.env["KERNEL_USERNAME"] == "jovyan"  # the token's user, not the client's word
        await manager.interrupt_kernel(kernel_id)
        await manager.restart_kernel(kernel_id)
        assert [model["id"] for model in await manager.list_kernels()] == [kernel_id]
        model = await manager.kernel_model(kernel_id)
        assert model["execution_state"] == "idle"
        await manager.shutdown_kernel(kernel_id)
        assert [what for what, _, _ in cluster.calls] == ["interrupt", "restart", "delete"]
        assert cluster.kernels == {}


async def test_a_503_does_not_make_it_forget_its_kernel(cluster: FakeCluster) -> None:
    async with serve_edge(cluster) as server:
        point_to(server)
        manager = GatewayMappingKernelManager()
        kernel_id = await manager.start_kernel(kernel_name="python3")
        cluster.fail["list"] = Unavailable("not in sync")
        with pytest.raises(HTTPError) as caught:
            await manager.list_kernels()
        assert caught.value.status_code == 503
        assert kernel_id in manager
        del cluster.fail["list"]
        assert [model["id"] for model in await manager.list_kernels()] == [kernel_id]


async def test_kernelspecs_and_logos_reach_it(cluster: FakeCluster) -> None:
    cluster.specs = {
        "default": "python3",
        "kernelspecs": {
            "python3": {
                "name": "python3",
                "spec": {"display_name": "Python 3", "language": "python", "argv": []},
                "resources": {"logo": "/kernelspecs/python3/logo.png"},
            }
        },
    }
    cluster.resources["python3", "logo.png"] = (b"\x89PNG", "image/png")
    async with serve_edge(cluster) as server:
        point_to(server)
        specs = GatewayKernelSpecManager()
        found = await specs.get_kernel_spec("python3")
        assert found["spec"]["display_name"] == "Python 3"
        assert found["resources"]["logo"].endswith("/kernelspecs/python3/logo.png")
        assert await specs.get_kernel_spec_resource("python3", "logo.png") == b"\x89PNG"
        assert await specs.get_kernel_spec_resource("python3", "none.png") is None
        with pytest.raises(KeyError):
            await specs.get_kernel_spec("julia")
