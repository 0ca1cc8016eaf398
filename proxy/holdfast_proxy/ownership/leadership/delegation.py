"""What a passive proxy passes on to the leader: starts, and heartbeats that name strangers.

Restarts and deletes go the way that they go to any owner (``ownership.lifecycle``). A start may
be sent again whatever became of it, because its kernel id makes it idempotent. A launcher talks
to any proxy, so a keeper without record may be met by one that may not restore it; the heartbeat
is then repeated at the leader, with the launcher's own credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import structlog

from holdfast_proxy.cluster import KernelModel, StartRequest
from holdfast_proxy.errors import Misdirected, Unavailable
from holdfast_proxy.ownership.background import SingleFlight
from holdfast_proxy.ownership.calls.calling import Caller, NoReply, NotSent, Target
from holdfast_proxy.ownership.calls.forwarding import Forwarder, OwnerUnreachable
from holdfast_proxy.ownership.parts import Parts

_log = structlog.get_logger(__name__)

#: Seconds between two looks at who leads, besides what the record's changes say.
_LOOK = 0.25


class Delegation:
    """Asks the leader in a client's or a launcher's name."""

    def __init__(self, parts: Parts, forwarder: Forwarder, caller: Caller) -> None:
        self._parts = parts
        self._forwarder = forwarder
        self._caller = caller
        self._flights = SingleFlight(parts.tasks)

    def __repr__(self) -> str:
        return f"<Delegation to {self._parts.authority.leader}>"

    async def start(self, request: StartRequest) -> KernelModel | None:
        """The kernel as the leader started it; None when this proxy has come to lead.

        Raises Misdirected when another proxy took us for the leader, Unavailable when nobody
        leads for ``takeover_wait`` seconds, and what the leader answered.
        """
        parts = self._parts
        if request.forwarded_by is not None:
            raise Misdirected("this proxy does not lead the cluster", owner=parts.authority.leader)
        parts.member.require()
        give_up = parts.clock.now() + parts.takeover_wait
        why = "no proxy leads the cluster"
        while not parts.authority.may_own:
            target = self._leader()
            if target is not None:
                try:
                    return await self._forwarder.start(target, request)
                except Misdirected as error:
                    why = f"the leader is changing: {error.message}"
                except OwnerUnreachable as error:
                    why = f"the leader cannot be reached: {error}"
            if parts.clock.now() > give_up:
                raise Unavailable(f"the kernel cannot be started now: {why}", retry_after=1.0)
            await parts.view.wait_changed(request.kernel_id, _LOOK)
        return None

    def repeat(self, launcher_id: str, credential: str, body: Mapping[str, Any]) -> None:
        """Have the leader hear this heartbeat too, in the background. At most one at a time."""
        target = self._leader()
        if target is None:
            return

        async def tell() -> None:
            path = f"/holdfast/v1/launchers/{quote(launcher_id, safe='')}"
            whole = Target(url=target.url, bearer=credential, fingerprint=target.fingerprint)
            try:
                await self._caller.call("POST", whole, path, timeout=5.0, body=body)
            except (NotSent, NoReply) as error:
                _log.info("a heartbeat was not repeated", launcher=launcher_id, error=str(error))

        self._flights.begin(launcher_id, tell)

    def _leader(self) -> Target | None:
        leader = self._parts.authority.leader
        if leader is None or leader == self._parts.member.proxy_id:
            return None
        peer = self._parts.view.proxies.get(leader)
        if peer is None:
            return None
        return Target(url=peer.record.url, fingerprint=peer.record.fingerprint)
