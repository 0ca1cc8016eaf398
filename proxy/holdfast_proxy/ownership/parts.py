"""The parts that the lifecycle modules share, in one value, wired by ``assembly``."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import (
    Endpoint,
    KernelEvent,
    KernelRecord,
    Tombstone,
    advance,
)
from holdfast_proxy.cluster import LifecycleCall
from holdfast_proxy.errors import NotFound, Unavailable
from holdfast_proxy.ownership.background import TaskSet
from holdfast_proxy.ownership.cache import ClusterView, Entry
from holdfast_proxy.ownership.calls.endpoints import Endpoints
from holdfast_proxy.ownership.calls.keepers import Guard, KeeperClient
from holdfast_proxy.ownership.calls.launcher_client import Handle, LauncherClient
from holdfast_proxy.ownership.clock import Clock
from holdfast_proxy.ownership.history.timeline import Timeline
from holdfast_proxy.ownership.kernels.writes import KernelWriter, read_kernel
from holdfast_proxy.ownership.leadership.authority import Authority
from holdfast_proxy.ownership.member import Member
from holdfast_proxy.ownership.nodes.kernelspecs import Kernelspecs
from holdfast_proxy.ownership.nodes.launchers import Launchers
from holdfast_proxy.ownership.nodes.reports import Reports
from holdfast_proxy.ownership.owner import Ownership
from holdfast_proxy.ownership.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One proxy's parts. ``takeover_wait``: seconds that a request waits through a takeover."""

    clock: Clock
    view: ClusterView
    member: Member
    authority: Authority
    ownership: Ownership
    writer: KernelWriter
    sealer: Sealer
    reports: Reports
    endpoints: Endpoints
    keepers: KeeperClient
    launchers: Launchers
    launcher_client: LauncherClient
    kernelspecs: Kernelspecs
    timeline: Timeline
    tasks: TaskSet
    takeover_wait: float
    node_grace: float

    def cached(self, kernel_id: str) -> Entry[KernelRecord] | None:
        """The record of a kernel that is not deleted, from the view."""
        entry = self.view.kernel(kernel_id)
        return None if entry is None else _living(entry)

    async def known(self, kernel_id: str, user: str | None) -> Entry[KernelRecord]:
        """The user's kernel, from the view or else by a linearizable read.

        Raises NotFound when it is proven absent, deleted, being deleted or another user's (they
        look the same), Unavailable when etcd cannot be asked about one that the view has not.
        """
        entry = self.view.kernel(kernel_id) or await read_kernel(self.view, kernel_id)
        living = None if entry is None else _living(entry)
        if living is None or (user is not None and living.record.user != user):
            raise NotFound(f"Kernel does not exist: {kernel_id}")
        return living

    def launched(self, kernel_id: str, record: KernelRecord, handle: Handle) -> KernelRecord:
        """The record with the keeper that ``handle`` (checked, alive) names."""
        assert handle.host is not None and handle.credential is not None  # noqa: PT018
        return advance(
            record,
            KernelEvent.LAUNCHED,
            changed=self.clock.stamp(),
            endpoint=Endpoint(host=handle.host, port=handle.port),
            fingerprint=handle.fingerprint,
            sealed_credential=self.sealer.seal(self.writer.key(kernel_id), handle.credential),
            epoch=handle.epoch,
            engine_handle=dict(handle.engine_handle),
        )

    def guard(self, kernel_id: str, token: Token | None, call: LifecycleCall | None) -> Guard:
        """A check for right before a send: the call is not too old, this process did not stand
        still, and the token is still ours. ``token`` None: the call needs no ownership."""

        def check() -> None:
            if call is not None and call.deadline is not None:
                late = self.clock.now() - call.deadline
                if late > 0:
                    raise Unavailable(
                        f"the request waited {late:.1f} s longer than it is good for; "
                        "nothing was done, ask again"
                    )
            if token is None:
                return
            if self.member.held_up:
                raise Unavailable("this proxy stood still until a moment ago; ask again")
            if self.ownership.token(kernel_id) != token:
                raise Unavailable("the kernel was taken over by another proxy; ask again")

        return check

    def leased_guard(self, kernel_id: str, token: Token, call: LifecycleCall | None) -> Guard:
        """The same, and refuses after ``fence_at``: for start, delete and burial."""
        check_rest = self.guard(kernel_id, token, call)

        def check() -> None:
            self.member.require()
            check_rest()

        return check


def _living(entry: Entry[KernelRecord | Tombstone]) -> Entry[KernelRecord] | None:
    if isinstance(entry.record, Tombstone):
        return None
    return Entry(entry.record, entry.revision, entry.lease)
