"""Whether etcd answers this proxy, and what is to be said about it: asked at most every 2 s."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from holdfast_proxy.overview import EtcdView
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.store.contract import Store, StoreStatus
from holdfast_proxy.store.errors import StoreError

_DEADLINE = 0.8
_KEEP = 2.0


class EtcdProbe:
    """Remembers the version through an outage."""

    def __init__(
        self, *, store: Store, member: Member, endpoints: Sequence[str], clock: Clock
    ) -> None:
        self._store = store
        self._member = member
        self._endpoints = tuple(without_userinfo(endpoint) for endpoint in endpoints)
        self._clock = clock
        self._asked_at = float("-inf")
        self._reachable = False
        self._status: StoreStatus | None = None

    def __repr__(self) -> str:
        return f"<EtcdProbe {'reachable' if self._reachable else 'not reachable'}>"

    @property
    def status(self) -> StoreStatus | None:
        """The last that it said, perhaps long ago."""
        return self._status

    async def look(self) -> EtcdView:
        """Ask if the last answer is old. Raises nothing on purpose."""
        if self._clock.now() - self._asked_at >= _KEEP:
            try:
                self._status = await self._store.status(timeout=_DEADLINE)
                self._reachable = True
            except StoreError:
                self._reachable = False
            self._asked_at = self._clock.now()
        return self._view()

    def _view(self) -> EtcdView:
        warnings = []
        if not self._reachable:
            warnings.append(
                "etcd does not answer this proxy: open notebooks go on; starts, deletes and "
                "takeovers wait, and what is shown is what was known before"
            )
        if self._status is not None and self._status.warning is not None:
            warnings.append(self._status.warning)
        return EtcdView(
            reachable=self._reachable,
            version=None if self._status is None else self._status.version,
            warnings=warnings,
            endpoints=self._endpoints,
            lease_age=self._member.lease_age,
        )


def without_userinfo(endpoint: str) -> str:
    """A user and a password in an address are nobody's to see."""
    if "@" not in endpoint:
        return endpoint
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
