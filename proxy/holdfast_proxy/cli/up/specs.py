"""How each program of the tree is run and seen to be ready: the plan turned into ChildSpecs.

Apart from the tree so that the tree can be tested with programs that are not ours.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from .child import ChildSpec
from .plan import Plan, child_env
from .probe import HttpAnswer, Probe, ReadyFile


class Specs(ABC):
    """What the tree starts. Lists are in the order of their names."""

    @abstractmethod
    def etcd(self) -> ChildSpec: ...

    @abstractmethod
    def proxies(self) -> Sequence[ChildSpec]: ...

    @abstractmethod
    def launchers(self) -> Sequence[ChildSpec]: ...

    @abstractmethod
    def lab(self) -> ChildSpec: ...

    @abstractmethod
    def end_kernels(self) -> Sequence[Sequence[str]]:
        """Command lines that end every kernel of a launcher, one for each launcher."""


class RealSpecs(Specs):
    """etcd, Holdfast's own programs and JupyterLab. ``env`` is that of `holdfast up`."""

    def __init__(
        self,
        plan: Plan,
        *,
        etcd: Path,
        env: Mapping[str, str],
        token: str,
        http: aiohttp.ClientSession,
    ) -> None:
        self._plan, self._etcd, self._token, self._http = plan, etcd, token, http
        self._env = child_env(env)

    def __repr__(self) -> str:
        return f"<RealSpecs {self._plan!r}>"

    def etcd(self) -> ChildSpec:
        probe = HttpAnswer(self._plan.etcd_url, "/health", self._http)
        return self._spec("etcd", "etcd", self._plan.etcd_argv(self._etcd), probe)

    def proxies(self) -> list[ChildSpec]:
        plan = self._plan
        return [
            self._spec(name, "proxy", plan.proxy_argv(name), self._ready_file(name))
            for name in plan.proxy_names
        ]

    def launchers(self) -> list[ChildSpec]:
        plan = self._plan
        return [
            self._spec(name, "launcher", plan.launcher_argv(name), self._ready_file(name))
            for name in plan.launcher_names
        ]

    def lab(self) -> ChildSpec:
        argv = self._plan.lab_argv(root=os.geteuid() == 0)
        env = self._plan.lab_env(self._env, token=self._token)
        # `/api` is the one address of a Jupyter server that needs no token.
        probe = HttpAnswer(self._plan.lab_url, "/api", self._http)
        return self._spec("lab", "lab", argv, probe, env=env)

    def end_kernels(self) -> list[tuple[str, ...]]:
        return [self._plan.end_kernels_argv(name) for name in self._plan.launcher_names]

    def _ready_file(self, name: str) -> ReadyFile:
        return ReadyFile(self._plan.state.ready_file(name))

    def _spec(
        self,
        name: str,
        kind: str,
        argv: tuple[str, ...],
        probe: Probe,
        *,
        env: Mapping[str, str] | None = None,
    ) -> ChildSpec:
        return ChildSpec(
            name=name,
            kind=kind,
            argv=argv,
            env=env or self._env,
            log=self._plan.state.log_file(name),
            probe=probe,
            private=kind in {"etcd", "proxy"},
        )
