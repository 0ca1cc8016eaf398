"""Which etcd endpoint to talk to: addresses, one gRPC channel for each, and rotation.

One channel per endpoint, not one over all: gRPC's own balancing keeps a connection for as long
as it stands, also to a member that answers nothing or has lost its leader; only the caller
notices that. What makes a caller leave an endpoint is decided in `calls` and `watch`.

Must not know: etcd's messages, and what the calls mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from holdfast_proxy.store.errors import Misuse

_log = structlog.get_logger(__name__)

#: etcd's server closes connections that ping more often than every 5 s, or with no stream open
#: (`embed.DefaultGRPCKeepAliveMinTime`; PermitWithoutStream is off).
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    # Also becomes TCP_USER_TIMEOUT: a peer that lost its power is noticed after this.
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's defaults (1 s doubling to 120 s, 20 s for a connect) outlast every lease.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A subchannel shared with another store of this process would share its backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # Retrying is decided here, where the effect of a call is known.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

#: Seconds between two looks at a channel that is connecting.
_LOOK_AGAIN: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files. ``ca`` None: the system's roots; ``cert`` and ``key``: a client
    certificate, whose CN is the etcd user when the server has ``--client-cert-auth``."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises `Misuse` when one is missing or only half a pair is named."""
        if (self.cert is None) != (self.key is None):
            raise Misuse("an etcd client certificate needs both cert and key")
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=self.ca.read_bytes() if self.ca else None,
                private_key=self.key.read_bytes() if self.key else None,
                certificate_chain=self.cert.read_bytes() if self.cert else None,
            )
        except OSError as error:
            raise Misuse(f"cannot read the etcd TLS files: {error}") from error


def parse_endpoints(urls: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """gRPC targets of ``http://host:port``, ``https://host:port`` or ``host:port``, and whether
    they want TLS. Raises `Misuse` for none, for a mixture, and for one without a port."""
    targets: list[str] = []
    schemes: set[str] = set()
    for url in urls:
        scheme, separator, rest = url.strip().rpartition("://")
        address = rest.rstrip("/")
        host, colon, port = address.rpartition(":")
        if (separator and scheme not in ("http", "https")) or not (
            host and colon and port.isdigit() and "/" not in address
        ):
            raise Misuse(f"not an etcd endpoint, wanted http://host:port: {url!r}")
        schemes.add(scheme or "http")
        targets.append(address)
    if not targets:
        raise Misuse("no etcd endpoint was given")
    if len(schemes) > 1:
        raise Misuse("etcd endpoints must be all http or all https")
    return tuple(dict.fromkeys(targets)), schemes == {"https"}


class Channel:
    """One endpoint's gRPC channel, opened at first use."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.target = target
        self._credentials = credentials
        self._channel: Any = None

    def __repr__(self) -> str:
        state = "unused" if self._channel is None else self._channel.get_state().name.lower()
        return f"<Channel {self.target} {state}>"

    @property
    def grpc_channel(self) -> Any:
        """The ``grpc.aio.Channel``; must be asked for on the running loop."""
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.target, options=_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(
                    self.target, self._credentials, options=_OPTIONS
                )
        return self._channel

    async def wait_ready(self, timeout: float, *, fail_fast: bool) -> bool:
        """Connect. False when it is not connected after ``timeout`` seconds, or, with
        ``fail_fast``, as soon as an attempt to connect has failed.

        It looks again and again, and only while there is no connection. Waiting for gRPC's
        ``wait_for_state_change`` was tried: a wait cannot be taken back, so each abandoned one
        stays in the core and completes after the channel's end, on a loop that is closed by then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    state = self._state()
                    if state is grpc.ChannelConnectivity.READY:
                        return True
                    if fail_fast and state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        return False
                    await asyncio.sleep(_LOOK_AGAIN)
        return False

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _state(self) -> grpc.ChannelConnectivity:
        """The state now; asks an idle channel to connect."""
        return self.grpc_channel.get_state(try_to_connect=True)


class Channels:
    """All endpoints, and the one in use. Invariant: ``current`` moves on only when somebody
    reports the current one as failed, so that ten calls that fail together move it once."""

    def __init__(self, targets: Sequence[str], open_channel: Callable[[str], Channel]) -> None:
        self._channels = tuple(open_channel(target) for target in targets)
        self._index = 0

    def __repr__(self) -> str:
        return f"<Channels {self.current.target} of {len(self._channels)}>"

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def current(self) -> Channel:
        return self._channels[self._index]

    def report_failure(self, channel: Channel, reason: str) -> None:
        """Move on to the next endpoint, if ``channel`` is still the one in use."""
        if channel is not self.current or len(self._channels) == 1:
            return
        self._index = (self._index + 1) % len(self._channels)
        _log.info(
            "etcd endpoint left", endpoint=channel.target, now=self.current.target, reason=reason
        )

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
