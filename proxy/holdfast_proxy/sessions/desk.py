"""Opens, changes and closes sessions: a session and its kernel as one thing.

The order of steps is what keeps kernels from being left behind when a proxy dies in between.
Opening writes the session with a kernel id of its choice first and starts the kernel under that
id then: whoever asks again, at any proxy, finds the session and goes on with the same start
(starts are idempotent by id). Closing ends the kernel first and deletes the session then. A
session without a kernel is shown to nobody and swept away in the end (``ownership.sessions``).

Must not know HTTP or etcd. Rejected: the kernel first, then the session (a proxy killed between
the two leaves a kernel that nobody knows of, and the retry starts a second one).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

import structlog

from ..cluster import Cluster, KernelModel, LifecycleCall, StartRequest
from ..errors import BadRequest, Conflict, Gone, NotFound, ProxyError, StartFailed, Unavailable
from .shelf import START_GRACE, Draft, Session, Shelf

#: Rounds after which a session that changes under our hands is given up.
_ROUNDS: Final = 5
_DEAD: Final = "dead"
_log: Final = structlog.get_logger("holdfast.sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelWish:
    """Which kernel a session shall have: one that there is (``id``), or a new one of a
    kernelspec (``name``; None: the default one)."""

    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A request for a session. ``user`` is who asks."""

    user: str
    path: str
    name: str
    kind: str
    kernel: KernelWish = KernelWish()
    forwarded_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What of a session is to change; None stays."""

    path: str | None = None
    name: str | None = None
    kind: str | None = None
    kernel: KernelWish | None = None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session with its kernel as it is now."""

    session: Session
    kernel: KernelModel


class Desk:
    """The sessions of one cluster. All methods raise ``errors.ProxyError``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<Desk of {self._cluster.proxy_id}>"

    @property
    def _shelf(self) -> Shelf:
        return self._cluster.sessions

    async def all(self, user: str | None) -> list[OpenSession]:
        """The user's sessions whose kernel is there; the whole list, or raises Unavailable."""
        sessions = await self._shelf.all(user)
        kernels = {model.id: model for model in await self._cluster.list_kernels(user)}
        return [
            OpenSession(session, kernels[session.kernel_id])
            for session in sessions
            if session.kernel_id in kernels
        ]

    async def get(self, session_id: str, user: str | None) -> OpenSession:
        """One session. Raises NotFound, also when its kernel is proven gone."""
        session = await self._shelf.get(session_id, user)
        return OpenSession(session, await self._cluster.get_kernel(session.kernel_id, user))

    async def open(self, opening: Opening) -> OpenSession:
        """The session of this user and path: the one there is, or a new one with its kernel.

        Raises BadRequest for a kernel or kernelspec that is not there, StartFailed, Unavailable.
        """
        if opening.kernel.id is not None:
            await self._known(opening.kernel.id, opening.user)
        for _ in range(_ROUNDS):
            draft = Draft(
                user=opening.user,
                path=opening.path,
                name=opening.name,
                kind=opening.kind,
                kernel_id=opening.kernel.id or str(uuid.uuid4()),
            )
            session, created = await self._shelf.create(draft)
            kernel = None if created else await self._living(session)
            if kernel is None and created and opening.kernel.id is not None:
                kernel = await self._known(opening.kernel.id, opening.user)
            if kernel is None and (created or session.age < START_GRACE):
                kernel = await self._start(session, opening, created=created)
            if kernel is not None:
                return OpenSession(session, kernel)
            await self._shelf.remove(session)  # its kernel is gone: begin anew
        raise Unavailable("this session is being changed by others; ask again")

    async def change(
        self, session_id: str, user: str | None, changes: Changes, call: LifecycleCall
    ) -> OpenSession:
        """Rename it, or give it another kernel; the old kernel ends unless another session has
        it. Raises NotFound, BadRequest, StartFailed, Unavailable."""
        session = await self._shelf.get(session_id, user)
        wanted = await self._wanted(session, changes.kernel, call)
        for _ in range(_ROUNDS):
            after = await self._shelf.replace(session, _draft(session, changes, wanted))
            if after is not None:
                if wanted is not None and wanted.id != session.kernel_id:
                    await self._end_old(session, call)
                kernel = wanted or await self._cluster.get_kernel(after.kernel_id, user)
                return OpenSession(after, kernel)
            try:
                session = await self._shelf.get(session_id, user)
            except NotFound:
                await self._give_back(wanted, changes.kernel, session.user, call)
                raise
        await self._give_back(wanted, changes.kernel, session.user, call)
        raise Unavailable("this session is being changed by others; ask again")

    async def close(self, session_id: str, user: str | None, call: LifecycleCall) -> None:
        """End its kernel and delete it. Raises NotFound; Gone when the kernel was gone already,
        and then the session is, too."""
        session = await self._shelf.get(session_id, user)
        try:
            await self._cluster.delete_kernel(session.kernel_id, user, call)
        except NotFound:
            await self._shelf.remove(session)
            raise Gone("Kernel deleted before session", reason="kernel_gone") from None
        await self._shelf.remove(session)

    # --- kernels ---

    async def _living(self, session: Session) -> KernelModel | None:
        """The kernel of a session; None when there is none (yet), or it is dead."""
        try:
            model = await self._cluster.get_kernel(session.kernel_id, session.user)
        except NotFound:
            return None
        return None if model.execution_state == _DEAD else model

    async def _known(self, kernel_id: str, user: str | None) -> KernelModel:
        try:
            return await self._cluster.get_kernel(kernel_id, user)
        except NotFound:
            raise BadRequest(f"No such kernel: {kernel_id}", reason="no_such_kernel") from None

    async def _start(
        self, session: Session, opening: Opening, *, created: bool
    ) -> KernelModel | None:
        """Start the session's kernel, or go on with its start. None: its id is used up."""
        start = _start_request(
            session, session.kernel_id, opening.kernel.name, forwarded_by=opening.forwarded_by
        )
        try:
            return await self._cluster.start_kernel(start)
        except Unavailable:
            raise  # it may still come: the session stays for whoever asks again
        except (Conflict, StartFailed):
            if not created:
                return await self._living(session)  # of another start, or gone
            await self._shelf.remove(session)
            raise
        except ProxyError:
            if created:
                await self._shelf.remove(session)
            raise

    async def _wanted(
        self, session: Session, wish: KernelWish | None, call: LifecycleCall
    ) -> KernelModel | None:
        if wish is None or (wish.id is None and wish.name is None):
            return None
        if wish.id is not None:
            return await self._known(wish.id, session.user)
        start = _start_request(
            session, str(uuid.uuid4()), wish.name, forwarded_by=call.forwarded_by
        )
        return await self._cluster.start_kernel(start)

    async def _end_old(self, session: Session, call: LifecycleCall) -> None:
        """The kernel that a session had. The session has its new one already, so what fails here
        is told to the log: the kernel stays in the list, where its user can end it."""
        others = await self._shelf.all(session.user)
        if any(other.kernel_id == session.kernel_id for other in others if other.id != session.id):
            return
        await self._end(session.kernel_id, session.user, call)

    async def _give_back(
        self,
        kernel: KernelModel | None,
        wish: KernelWish | None,
        user: str,
        call: LifecycleCall,
    ) -> None:
        """End a kernel that was started for a session that is gone."""
        if kernel is not None and wish is not None and wish.id is None:
            await self._end(kernel.id, user, call)

    async def _end(self, kernel_id: str, user: str, call: LifecycleCall) -> None:
        try:
            # Neither the client's request id nor its age limit: this is a call of ours.
            own = LifecycleCall(forwarded_by=call.forwarded_by)
            await self._cluster.delete_kernel(kernel_id, user, own)
        except NotFound:
            return
        except ProxyError as error:
            _log.warning("a session's old kernel stays", kernel=kernel_id, error=error.message)


def _start_request(
    session: Session, kernel_id: str, spec_name: str | None, *, forwarded_by: str | None
) -> StartRequest:
    return StartRequest(
        kernel_id=kernel_id,
        user=session.user,
        spec_name=spec_name,
        path=session.path,
        env={"KERNEL_USERNAME": session.user},
        forwarded_by=forwarded_by,
    )


def _draft(session: Session, changes: Changes, kernel: KernelModel | None) -> Draft:
    return Draft(
        user=session.user,
        path=session.path if changes.path is None else changes.path,
        name=session.name if changes.name is None else changes.name,
        kind=session.kind if changes.kind is None else changes.kind,
        kernel_id=session.kernel_id if kernel is None else kernel.id,
    )
