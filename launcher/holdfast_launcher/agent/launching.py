"""From a request to what a keeper is told: a plan, made before anything is done.

It knows the configuration, the kernelspecs and the environment's rules; it must not start
anything. What cannot be is refused here, with nothing to clean up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from holdfast_launcher.config import LauncherConfig
from holdfast_launcher.environment import kernel_environment
from holdfast_launcher.errors import BadRequest, NotReady, Refused, UnknownKernelspec
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.kernelspecs import Catalog

_TRANSPORTS = ("ipc", "tcp")


class StartOrder(Struct, frozen=True, kw_only=True):
    """The body of a PUT. Unknown fields are a newer proxy's and are ignored.

    ``limits`` may lower ``log_memory_bytes``, ``log_disk_bytes`` and ``autorestart_limit``.
    """

    nonce: Annotated[str, Meta(min_length=1, max_length=256)]
    user: Annotated[str, Meta(min_length=1, max_length=256)]
    spec: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    path: str | None = None
    limits: dict[str, Any] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        # env may hold a user's secrets.
        return f"StartOrder(spec={self.spec!r}, user={self.user!r})"

    @classmethod
    def from_json(cls, data: bytes) -> StartOrder:
        """Parse. Raises BadRequest that names the field."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise BadRequest(f"body: {error}") from error


def check_may_start(config: LauncherConfig, *, alive: int) -> None:
    """Whether one more kernel may be started beside ``alive`` ones. Raises Refused, NotReady."""
    if not config.single_user:
        raise Refused(
            "the local engine runs kernels as the launcher's own user, so it starts none "
            "unless single_user = true says that all of them are one person's",
            reason="single_user_required",
        )
    if alive >= config.capacity.kernels:
        raise NotReady(f"this launcher has its {alive} kernels", reason="no_capacity")


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """``refused``: names of variables that the client may not set."""

    keeper: KeeperConfig
    directory: Path
    refused: tuple[str, ...]


def plan_launch(
    *,
    kernel_id: str,
    order: StartOrder,
    config: LauncherConfig,
    catalog: Catalog,
    kernelspec_dirs: list[str],
    base_environment: Mapping[str, str],
    credential: str,
) -> LaunchPlan:
    """Decide everything about a keeper. Raises UnknownKernelspec, BadRequest."""
    spec = order.spec or catalog.model["default"]
    if spec is None:
        raise UnknownKernelspec("this launcher has no kernelspec at all")
    transport = catalog.metadata(spec).get("transport", "ipc")
    if transport not in _TRANSPORTS:
        raise BadRequest(f"kernelspec {spec!r}: metadata.holdfast.transport is {transport!r}")
    environment = kernel_environment(
        kernel_id=kernel_id,
        nonce=order.nonce,
        base=base_environment,
        requested=order.env,
        whitelist=frozenset(config.env_whitelist),
    )
    directory = config.kernels / kernel_id
    keeper = KeeperConfig(
        kernel_id=kernel_id,
        nonce=order.nonce,
        spec=spec,
        user=order.user,
        env=dict(environment.variables),
        path=working_directory(order.path, root=config.root_dir),
        state_dir=str(directory),
        host=config.host,
        credential=credential,
        kernelspec_dirs=kernelspec_dirs,
        log_memory_bytes=_limit(order, "log_memory_bytes", config.log_memory_bytes),
        log_disk_bytes=_limit(order, "log_disk_bytes", config.log_disk_bytes),
        log_quota_dir=str(config.log_quota),
        autorestart_limit=_limit(order, "autorestart_limit", config.autorestart_limit),
        transport=transport,
    )
    return LaunchPlan(keeper, directory, environment.refused)


def working_directory(path: str | None, *, root: str | None) -> str:
    """The deepest directory of the notebook's path that exists below ``root``, absolute.

    A notebook's path is relative to where the notebook server is rooted; without that directory
    here (another machine, another root) the kernel begins in ``root``.
    """
    top = Path(os.path.realpath(root or os.getcwd()))
    place = Path(os.path.realpath(top / (path or "").lstrip("/")))
    while place != top and top in place.parents:
        if place.is_dir():
            return str(place)
        place = place.parent
    return str(top)


def _limit(order: StartOrder, name: str, ours: int) -> int:
    asked = order.limits.get(name, ours)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise BadRequest(f"limits.{name}: a number, 0 or more")
    return min(asked, ours)
