"""From a kernel's record to where its keeper listens, and what a launcher may name as such.

Opened secrets are kept by record revision, so that a tunnel's ``locate`` costs two dictionary
look-ups. Must not know HTTP or the store.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from holdfast_protocol.kernel_records import KernelRecord
from holdfast_protocol.keys import Keys, Kind
from holdfast_proxy.cluster import KeeperEndpoint
from holdfast_proxy.config import is_loopback
from holdfast_proxy.errors import Unavailable
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherError
from holdfast_proxy.ownership.sealing import Sealer, SealError


class Endpoints:
    """Keeper endpoints by kernel."""

    def __init__(self, *, keys: Keys, sealer: Sealer) -> None:
        self._keys = keys
        self._sealer = sealer
        self._opened: dict[str, tuple[int, KeeperEndpoint]] = {}

    def __repr__(self) -> str:
        return f"<Endpoints: {len(self._opened)} opened>"

    def of(self, kernel_id: str, entry: Entry[KernelRecord]) -> KeeperEndpoint | None:
        """None before the launcher has answered. Raises Unavailable when it cannot be opened."""
        opened = self._opened.get(kernel_id)
        if opened is not None and opened[0] == entry.revision:
            return opened[1]
        record = entry.record
        if record.endpoint is None or record.sealed_credential is None:
            return None
        path = self._keys.of(Kind.KERNEL, kernel_id)
        try:
            credential = self._sealer.open(path, record.sealed_credential)
        except SealError as error:
            raise Unavailable(str(error)) from error
        endpoint = KeeperEndpoint(
            kernel_id=kernel_id,
            host=record.endpoint.host,
            port=record.endpoint.port,
            fingerprint=record.fingerprint,
            credential=credential,
        )
        self._opened[kernel_id] = (entry.revision, endpoint)
        return endpoint

    def overrule(self, kernel_id: str, revision: int, handle: Handle) -> KeeperEndpoint:
        """Use a newer keeper's endpoint until the record's owner has written it."""
        assert handle.host is not None and handle.credential is not None  # noqa: PT018
        endpoint = KeeperEndpoint(
            kernel_id=kernel_id,
            host=handle.host,
            port=handle.port,
            fingerprint=handle.fingerprint,
            credential=handle.credential,
        )
        self._opened[kernel_id] = (revision, endpoint)
        return endpoint

    def forget(self, kernel_id: str) -> None:
        self._opened.pop(kernel_id, None)


def check_endpoint(launcher_url: str, handle: Handle) -> None:
    """Refuse an endpoint that this launcher cannot mean well with. Raises LauncherError.

    Launchers run on machines where users' code runs. A proxy would send a user's keystrokes
    wherever the handle says, so loopback (the proxy's own) is only for a launcher on loopback,
    no keeper is at an address that is no host's, and off loopback a certificate is pinned.
    """
    host = handle.host or ""
    launcher_host = urlsplit(launcher_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None and (address.is_unspecified or address.is_multicast):
        raise LauncherError(f"the launcher names {host} as a keeper's address")
    if address is not None and address.is_link_local and host != launcher_host:
        raise LauncherError(f"the launcher names the link-local {host} as a keeper's address")
    if is_loopback(host) and not is_loopback(launcher_host):
        raise LauncherError(f"a launcher at {launcher_host} names a keeper on our loopback")
    if handle.fingerprint is None and not is_loopback(host):
        raise LauncherError(f"the keeper at {host} has no certificate fingerprint")
