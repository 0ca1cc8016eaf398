"""``holdfast doctor --new-era``: after etcd was restored from a backup, or began anew.

Fencing tokens are (era, revision), and a restored etcd gives revisions out again: what proxies
own since then has tokens that keepers and launchers have seen the like of, or higher ones, and
refuse. A higher era makes every new token higher than any old one (DESIGN: ownership). Proxies
see the change in their watch and claim everything again; kernels and notebooks go on meanwhile.

One transaction that compares what was read, so two administrators raise it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast_protocol.errors import RecordError
from holdfast_protocol.keys import Keys
from holdfast_protocol.records import ConfigRecord

from ...config import ConfigError, ProxyConfig, load_config
from ...store.contract import ModEquals, Put, Store
from ...store.errors import StoreError, Unknown
from ..access.exits import CommandFailed, NotNamed, Unreachable


@dataclass(frozen=True, slots=True)
class Era:
    """What etcd has: ``revision`` 0 when the cluster's config is absent (an empty etcd)."""

    record: ConfigRecord
    revision: int


def read_config(path: Path) -> ProxyConfig:
    """Raises NotNamed."""
    try:
        return load_config(path)
    except ConfigError as error:
        raise NotNamed(f"{path}: {error}") from error


async def raise_era(
    store: Store,
    keys: Keys,
    *,
    mode: str,
    at_least: int,
    confirm: Callable[[int, int], None],
) -> int:
    """Raise the era above what etcd has and above ``at_least`` (what proxies run by); the new one.

    ``confirm(old, new)`` raises to stop it. Raises Unreachable, CommandFailed.
    """
    try:
        old = await _read(store, keys, mode)
        highest = max(old.record.era, at_least)
        new = replace(old.record, era=highest + 1)
        confirm(highest, new.era)
        result = await store.txn(
            [ModEquals(keys.config, old.revision)], [Put(keys.config, new.encode())]
        )
    except Unknown as error:
        raise CommandFailed(
            f"etcd did not say whether it has it ({error}); look with `holdfast list`, which "
            "shows the era"
        ) from error
    except StoreError as error:
        raise Unreachable(f"etcd does not answer: {error}") from error
    except RecordError as error:
        raise CommandFailed(f"the cluster's config in etcd cannot be read: {error}") from error
    if not result.succeeded:
        raise CommandFailed("somebody else has changed it at this moment; look with holdfast list")
    return new.era


async def _read(store: Store, keys: Keys, mode: str) -> Era:
    found = await store.get(keys.config)
    if found is None:
        return Era(ConfigRecord(mode=mode, era=0), 0)
    return Era(ConfigRecord.decode(found.value), found.mod_revision)
