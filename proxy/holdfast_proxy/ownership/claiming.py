"""The transaction of one claim: put the owner key where it was seen, or learn that it moved.

Its outcome is one of three (``store.contract``): won, lost, or not known, which the next read of
the key settles. The decision to claim is ``owner``'s. It must not know terms.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from holdfast_protocol.fencing import Token
from holdfast_protocol.keys import Keys, Kind
from holdfast_protocol.records import OwnerRecord
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.ownership.cache import ClusterView
from holdfast_proxy.ownership.leadership.authority import Authority
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.store.contract import KeyValue, ModEquals, Put, Store
from holdfast_proxy.store.errors import LeaseLost, StoreError, Unknown

_log = structlog.get_logger(__name__)

_TIMEOUT = 2.0


class Claiming:
    """``count`` is told each outcome: ``won``, ``lost``, ``ambiguous`` or ``failed`` (surely
    without effect)."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        view: ClusterView,
        member: Member,
        authority: Authority,
        count: Callable[[str], None],
    ) -> None:
        self._store = store
        self._keys = keys
        self._view = view
        self._member = member
        self._authority = authority
        self._count = count

    def __repr__(self) -> str:
        return f"<Claiming for {self._member.proxy_id}>"

    async def swap(self, kernel_id: str, claim_id: str, observed: int) -> Token | None:
        """Put our owner key over that of revision ``observed``; None when it was lost or its
        outcome is unknown. Raises Unavailable."""
        key = self._keys.of(Kind.OWNER, kernel_id)
        value = OwnerRecord(proxy_id=self._member.proxy_id, claim_id=claim_id).encode()
        lease = self._member.lease_id
        outcome = "failed"
        try:
            result = await self._store.txn(
                [ModEquals(key, observed), self._member.compare, *self._authority.compares],
                [Put(key, value, lease)],
                timeout=_TIMEOUT,
            )
            outcome = "won" if result.succeeded else "lost"
        except Unknown:
            outcome = "ambiguous"
            return None
        except LeaseLost as error:
            raise Unavailable("this proxy has just lost its lease; try again") from error
        except StoreError as error:
            raise Unavailable(f"etcd does not answer: {error}") from error
        finally:
            self._count(outcome)
            if outcome != "won":
                _log.info("claim not won", kernel=kernel_id, claim=claim_id, outcome=outcome)
        if not result.succeeded:
            return None
        self._view.apply(KeyValue(key, value, result.revision, result.revision, 1, lease))
        return Token(self._member.era, result.revision)
