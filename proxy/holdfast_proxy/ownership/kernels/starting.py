"""Starting a kernel, in steps that any owner can resume.

    1. one transaction creates the record (``starting``) and the owner key
    2. launcher PUT, fenced, idempotent by nonce           → a keeper listens
    3. the record gets the keeper's endpoint and credential, by compare-and-swap
    4. keeper /v1/start, fenced, idempotent                → the kernel answers
    5. the record says ``running``

Invariant: no kernel runs without a record that names its keeper, because 4 comes after 3; and no
two kernels run for one id, because every step compares or is idempotent by the nonce of 1. A
start goes on when its client hangs up; the client's retry, at any proxy, follows the record.
Deletions and restarts are not known here.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from functools import partial

import structlog

from holdfast_protocol.fencing import Token
from holdfast_protocol.kernel_records import (
    KernelEvent,
    KernelRecord,
    KernelState,
    Step,
    Tombstone,
    advance,
    next_step,
)
from holdfast_proxy.cluster import StartRequest
from holdfast_proxy.errors import (
    BadRequest,
    Conflict,
    Misdirected,
    ProxyError,
    StaleToken,
    StartFailed,
    Unavailable,
)
from holdfast_proxy.ownership.background import SingleFlight
from holdfast_proxy.ownership.cache import Entry
from holdfast_proxy.ownership.calls.endpoints import check_endpoint
from holdfast_proxy.ownership.calls.keepers import START, KeeperError, KeeperRefused
from holdfast_proxy.ownership.calls.launcher_client import (
    LauncherError,
    LauncherRefused,
    LauncherUnreachable,
)
from holdfast_proxy.ownership.kernels.endings import Endings
from holdfast_proxy.ownership.kernels.writes import WriteLost, read_kernel
from holdfast_proxy.ownership.nodes.launchers import body_digest
from holdfast_proxy.ownership.nodes.placement import Candidate, NoPlace, capacity_of, place
from holdfast_proxy.ownership.parts import Parts
from holdfast_proxy.ownership.sealing import SealError

_log = structlog.get_logger(__name__)

#: Seconds that a POST follows its record before it asks the client to come again.
_FOLLOW = START
#: Launchers tried for one kernel while none has received anything.
_PLACES = 3
#: Steps in one go; more means that something undoes what we do.
_STEPS = 12


class Starts:
    """Starts kernels and finishes half-done starts."""

    def __init__(self, parts: Parts, endings: Endings) -> None:
        self._parts = parts
        self._endings = endings
        self._flights = SingleFlight(parts.tasks)

    def __repr__(self) -> str:
        return f"<Starts {self._flights!r}>"

    async def start(self, request: StartRequest) -> Entry[KernelRecord]:
        """The running kernel's record. Raises ProxyError."""
        parts = self._parts
        if parts.view.kernel(request.kernel_id) is None:
            parts.member.require()
            record = self._new_record(request)
            claim_id = secrets.token_hex(8)
            try:
                token = await parts.writer.create(request.kernel_id, record, claim_id=claim_id)
            except WriteLost:
                if await read_kernel(parts.view, request.kernel_id) is None:
                    raise _overtaken(request) from None
                _log.info("a start with this id exists", kernel=request.kernel_id)
            else:
                parts.ownership.created(request.kernel_id, claim_id, token)
        return await self._follow(request)

    def resume(self, kernel_id: str, token: Token) -> None:
        """Finish in the background what a former owner began."""
        self._flights.begin(kernel_id, lambda: self._drive(kernel_id, token))

    # --- step 1 ---

    def _new_record(self, request: StartRequest) -> KernelRecord:
        parts = self._parts
        spec_name = request.spec_name or parts.kernelspecs.merged()["default"]
        if not isinstance(spec_name, str):
            raise Unavailable("no launcher offers a kernel yet")
        path = parts.writer.key(request.kernel_id)
        launch = json.dumps({"env": dict(request.env), "path": request.path})
        return KernelRecord(
            spec_name=spec_name,
            user=request.user,
            launcher_id=self._place(spec_name),
            nonce=secrets.token_hex(16),
            digest=_digest(request),
            state=KernelState.STARTING,
            changed=parts.clock.stamp(),
            sealed_launch=parts.sealer.seal(path, launch),
        )

    def _place(self, spec_name: str, avoid: frozenset[str] = frozenset()) -> str:
        view = self._parts.view
        loads = dict.fromkeys(view.launchers, 0)
        for entry in view.kernels.values():
            record = entry.record
            if isinstance(record, KernelRecord) and record.state is not KernelState.DEAD:
                loads[record.launcher_id] = loads.get(record.launcher_id, 0) + 1
        candidates = [
            Candidate(
                launcher_id=launcher_id,
                specs=self._parts.kernelspecs.names(launcher_id),
                load=loads[launcher_id],
                capacity=capacity_of(entry.record.capacity),
            )
            for launcher_id, entry in view.launchers.items()
        ]
        try:
            return place(candidates, spec_name=spec_name, avoid=avoid)
        except NoPlace as error:
            if error.unknown_spec:
                raise BadRequest(str(error), reason="unknown_kernelspec") from error
            raise Unavailable(str(error), retry_after=2.0) from error

    # --- following the record ---

    async def _follow(self, request: StartRequest) -> Entry[KernelRecord]:
        """Until it runs or is dead, whoever drives it."""
        parts, kernel_id = self._parts, request.kernel_id
        give_up = parts.clock.now() + _FOLLOW
        while parts.clock.now() < give_up:
            entry = parts.view.kernel(kernel_id) or await read_kernel(parts.view, kernel_id)
            record = _usable(request, None if entry is None else entry.record)
            if entry is not None and record.state is KernelState.RUNNING:
                return Entry(record, entry.revision, entry.lease)
            token = parts.ownership.token(kernel_id)
            if token is None:
                await parts.ownership.ensure(kernel_id)
            if token is not None:
                await self._flights.run(kernel_id, partial(self._drive, kernel_id, token))
            elif parts.ownership.token(kernel_id) is None:
                await parts.view.wait_changed(kernel_id, 0.5)
        raise Unavailable("the kernel is still starting; ask again", retry_after=2.0)

    # --- steps 2 to 5 ---

    async def _drive(self, kernel_id: str, token: Token) -> None:
        """As far as it goes. Returns when there is no step left for us, or ownership was lost.

        Raises Unavailable when a step cannot be made now; the record says which one it was.
        """
        parts = self._parts
        tried: frozenset[str] = frozenset()
        try:
            for _ in range(_STEPS):
                entry = parts.cached(kernel_id)
                if entry is None or parts.ownership.token(kernel_id) != token:
                    return
                step = next_step(entry.record)
                if step is Step.LAUNCH:
                    tried = await self._launch(kernel_id, entry, token, tried)
                elif step is Step.BEGIN:
                    await self._begin(kernel_id, entry, token)
                else:
                    return
        except (WriteLost, StaleToken) as error:
            _log.info("a start goes on elsewhere", kernel=kernel_id, error=str(error))
            await self._endings.recheck(kernel_id, token, stale=isinstance(error, StaleToken))

    async def _launch(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token, tried: frozenset[str]
    ) -> frozenset[str]:
        parts, record = self._parts, entry.record
        try:
            target = parts.launchers.target(record.launcher_id)
            handle = await parts.launcher_client.launch(
                target,
                kernel_id,
                token,
                self._order(kernel_id, record),
                guard=parts.leased_guard(kernel_id, token, None),
            )
            if not handle.alive or handle.nonce != record.nonce:
                raise LauncherError(handle.reason or "the launcher answered for another start")
            check_endpoint(target.url, handle)
        except LauncherUnreachable as error:
            if error.sent or len(tried) + 1 >= _PLACES:
                raise Unavailable(
                    f"launcher {record.launcher_id!r} does not answer: {error}", retry_after=2.0
                ) from error
            return await self._place_anew(kernel_id, entry, token, tried)
        except LauncherRefused as error:
            await self._refused(kernel_id, entry, token, error)
        except LauncherError as error:
            await self._endings.die(kernel_id, entry, token, f"it could not be started: {error}")
        else:
            launched = parts.launched(kernel_id, record, handle)
            await parts.writer.put(kernel_id, entry, launched, token=token)
        return tried

    def _order(self, kernel_id: str, record: KernelRecord) -> dict[str, object]:
        path = self._parts.writer.key(kernel_id)
        try:
            launch = json.loads(self._parts.sealer.open(path, record.sealed_launch))
        except SealError as error:
            raise Unavailable(str(error)) from error
        return {
            "nonce": record.nonce,
            "spec": record.spec_name,
            "user": record.user,
            "env": launch["env"],
            "path": launch["path"],
            "limits": {},
        }

    async def _place_anew(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token, tried: frozenset[str]
    ) -> frozenset[str]:
        """Another launcher, allowed only as the first one surely received nothing from us, and
        nobody before us can have sent it anything: then our claim would not be the record's
        first, so a resumed start never comes here."""
        parts, record = self._parts, entry.record
        if not tried and entry.revision != token.revision:
            raise Unavailable(f"launcher {record.launcher_id!r} does not answer", retry_after=2.0)
        tried = tried | {record.launcher_id}
        moved = advance(
            record,
            KernelEvent.PLACED,
            changed=parts.clock.stamp(),
            launcher_id=self._place(record.spec_name, avoid=tried),
            nonce=secrets.token_hex(16),
        )
        _log.info("placed anew", kernel=kernel_id, launcher=moved.launcher_id)
        await parts.writer.put(kernel_id, entry, moved, token=token)
        return tried

    async def _refused(
        self, kernel_id: str, entry: Entry[KernelRecord], token: Token, error: LauncherRefused
    ) -> None:
        parts = self._parts
        if error.status == 503:
            raise Unavailable(str(error), retry_after=2.0) from error
        if error.status == 409:
            # Another incarnation of this id lives there: end it, then the step is made again.
            target = parts.launchers.target(entry.record.launcher_id)
            guard = parts.leased_guard(kernel_id, token, None)
            try:
                await parts.launcher_client.end(target, kernel_id, token, timeout=20.0, guard=guard)
            except LauncherError as failure:
                raise Unavailable(str(failure), retry_after=2.0) from failure
            return
        await self._endings.die(kernel_id, entry, token, f"it could not be started: {error}")

    async def _begin(self, kernel_id: str, entry: Entry[KernelRecord], token: Token) -> None:
        parts = self._parts
        endpoint = parts.endpoints.of(kernel_id, entry)
        assert endpoint is not None
        try:
            state = await parts.keepers.start(
                endpoint,
                token,
                entry.record.nonce,
                guard=parts.leased_guard(kernel_id, token, None),
            )
        except KeeperRefused as error:
            if error.status == 503:
                raise Unavailable(str(error), retry_after=1.0) from error
            await self._endings.die(kernel_id, entry, token, error.explained)
            return
        except KeeperError as error:
            if not await self._endings.seek(kernel_id, entry, token):
                raise Unavailable(f"its keeper does not answer: {error}") from error
            await asyncio.sleep(0.05)
            return
        running = advance(
            entry.record,
            KernelEvent.STARTED,
            changed=parts.clock.stamp(),
            incarnation=state.incarnation,
            kernel_session=state.kernel_session,
            epoch=state.epoch,
        )
        await parts.writer.put(kernel_id, entry, running, token=token)
        parts.ownership.acknowledged(kernel_id, token)  # both were called with it
        launcher_id = entry.record.launcher_id
        parts.timeline.note("started", kernel_id, f"on {launcher_id}", launcher_id=launcher_id)


def _digest(request: StartRequest) -> str:
    """What makes two starts with one id the same. Not the variables: a client that tries again
    may well send a newer token in them."""
    return body_digest({"spec": request.spec_name, "path": request.path})


def _overtaken(request: StartRequest) -> ProxyError:
    """Nothing was begun, and not for the id's sake: our lead or our registration has ended and we
    have not seen it yet. Who passed the start on to us looks for the new leader."""
    why = "this proxy may not start kernels any more"
    if request.forwarded_by is not None:
        return Misdirected(why, owner=None)
    return Unavailable(f"{why}; ask again", retry_after=0.5)


def _usable(request: StartRequest, record: KernelRecord | Tombstone | None) -> KernelRecord:
    """The record if this request may follow it. Raises Conflict, StartFailed."""
    if record is None or isinstance(record, Tombstone) or record.user != request.user:
        raise Conflict("this kernel id cannot be used; choose another one")
    if record.state is KernelState.DELETING:
        raise Conflict("this kernel id cannot be used; choose another one")
    if record.digest != _digest(request):
        raise Conflict("this kernel id was used for another start; choose another one")
    if record.state is KernelState.DEAD:
        raise StartFailed(record.reason or "the kernel is dead")
    return record
