"""Where keepers of other machines report: the exclusive start fence, and what they say later.

It knows the files of a start in the launcher's directory of a kernel and must not know HTTP,
phases or how the keeper got where it is. In that directory:

- ``start.json`` (0600): the nonce and the one-time token, before the engine is asked for anything;
- ``config.json`` (0600): what the keeper is told. It comes to the keeper in the answer to its
  claim, so no secret of a kernel ever passes through a scheduler;
- ``claim.json``: the fence. Created by link(2), which exactly one of any number of claims wins,
  and on disk before the answer. It holds the incarnation id that the winner made up when it began;
- ``keeper.json`` and ``activity.json``: what a keeper writes here itself when it is on this
  machine, and says to us when it is not.

Invariant: of all the processes that any number of starts of one job bring up, one at most is ever
told its config, so one at most can run a kernel. That is decided here, on the launcher's disk,
and not by an engine's word: a Slurm controller that was killed right after it started a job ran
the same job id twice. A claim may be repeated by the one that won it (its answer was lost).

Rejected: a fence on a shared file system (not every site has one where nodes and launcher write,
and NFS without locks cannot create exclusively); the config in the job's script (schedulers keep
scripts, some in a database).
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from holdfast_launcher.errors import BadRequest, LauncherError, Unauthorized
from holdfast_launcher.keeper.config import KeeperConfig
from holdfast_launcher.state.keeper_files import (
    ACTIVITY_FILE,
    KEEPER_FILE,
    Activity,
    KeeperFile,
    read_keeper_file,
)
from holdfast_launcher.state.statefiles import read_json, write_json, write_private

_T = TypeVar("_T", bound=Struct)

START_FILE = "start.json"
CLAIM_FILE = "claim.json"
CONFIG_FILE = "config.json"


class AlreadyStarted(LauncherError):
    """Another process has claimed this start: whoever hears it ends itself."""

    status = 409
    reason = "already_started"


class Claim(Struct, frozen=True, kw_only=True):
    """The body of a claim. ``incarnation``: 32 hex digits that the process made up when it began;
    ``job``: what the scheduler calls it, for people."""

    incarnation: str
    host: str
    pid: int
    job: str | None = None


class ReadyCall(Struct, frozen=True, kw_only=True):
    """The body of a ready call: who claimed, and its keeper's ``keeper.json``."""

    incarnation: str
    keeper: KeeperFile


class StartDesk:
    """``kernels``: the directory with one directory for each kernel. Its methods block on the
    disk."""

    def __init__(self, kernels: Path) -> None:
        self._kernels = kernels

    def __repr__(self) -> str:
        return f"StartDesk({str(self._kernels)!r})"

    def claim(self, kernel_id: str, token: str, body: bytes) -> KeeperConfig:
        """Win the start, and be told what to run. Raises Unauthorized (also when the start is not
        wanted any more), AlreadyStarted, BadRequest."""
        directory = self._entered(kernel_id, token)
        claim = _parse(body, Claim)
        if len(claim.incarnation) != 32:
            raise BadRequest("incarnation: 32 hex digits")
        present = _claimed(directory)
        if read_keeper_file(directory) is not None:
            raise AlreadyStarted("this start has its keeper; end this process")
        if present is None:
            _claim_exclusively(directory / CLAIM_FILE, claim)
            present = _claimed(directory)
        if present is None or not hmac.compare_digest(present.incarnation, claim.incarnation):
            raise AlreadyStarted("this start was claimed by another process; end this one")
        return KeeperConfig.from_json((directory / CONFIG_FILE).read_bytes())

    def ready(self, kernel_id: str, token: str, body: bytes) -> None:
        """The keeper listens. From here on its token opens nothing. Raises as ``claim`` does."""
        directory = self._entered(kernel_id, token)
        call = _parse(body, ReadyCall)
        present = _claimed(directory)
        if present is None or present.incarnation != call.incarnation:
            raise AlreadyStarted("this start was claimed by another process; end this one")
        told = KeeperConfig.from_json((directory / CONFIG_FILE).read_bytes())
        keeper = call.keeper
        if (keeper.kernel_id, keeper.nonce, keeper.credential) != (
            told.kernel_id, told.nonce, told.credential,
        ):  # fmt: skip
            raise BadRequest("keeper: not the one that this start is for")
        # The keeper's process is on its own machine: only what a proxy needs is kept of it, so
        # that no pid of that machine is ever taken for one of ours.
        document = msgspec.to_builtins(msgspec.structs.replace(keeper, process=None))
        document["incarnation"], document["host"] = call.incarnation, present.host
        if read_keeper_file(directory) is None:
            write_private(directory / KEEPER_FILE, msgspec.json.encode(document), durable=True)

    def activity(self, kernel_id: str, credential: str, body: bytes) -> None:
        """What its kernel does. Raises Unauthorized, BadRequest."""
        directory = self._kernels / kernel_id
        keeper = read_keeper_file(directory)
        if keeper is None or not _same(keeper.credential, credential):
            raise Unauthorized("no such keeper")
        document = msgspec.to_builtins(_parse(body, Activity))
        write_json(directory / ACTIVITY_FILE, document)

    def _entered(self, kernel_id: str, token: str) -> Path:
        directory = self._kernels / kernel_id
        expected = (read_json(directory / START_FILE) or {}).get("token")
        # Unknown and wrong look the same from outside.
        if not isinstance(expected, str) or not _same(expected, token):
            raise Unauthorized("this start is not wanted (any more); end this process")
        return directory


def open_start(directory: Path, config: KeeperConfig) -> str:
    """Prepare a start in the launcher's directory; answers its one-time token.

    The one that is there when the same start (nonce) was opened before. Raises OSError.
    """
    present = read_json(directory / START_FILE) or {}
    token = present.get("token")
    if present.get("nonce") == config.nonce and isinstance(token, str):
        return token
    token = secrets.token_urlsafe(32)
    write_private(directory / CONFIG_FILE, config.to_json())
    document = {"kernel_id": config.kernel_id, "nonce": config.nonce, "token": token}
    write_json(directory / START_FILE, document, durable=True)
    return token


def read_start_nonce(directory: Path) -> str | None:
    """The nonce of the start that was opened there; None: none was."""
    nonce = (read_json(directory / START_FILE) or {}).get("nonce")
    return nonce if isinstance(nonce, str) else None


def _claimed(directory: Path) -> Claim | None:
    document = read_json(directory / CLAIM_FILE)
    return None if document is None else msgspec.convert(document, Claim)


def _claim_exclusively(path: Path, claim: Claim) -> None:
    """Link a whole file into place: a name that exists is never replaced (link(2), EEXIST)."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_private(draft, msgspec.json.encode(claim), durable=True)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink(missing_ok=True)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _parse(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise BadRequest(f"body: {error}") from error


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogateescape"))
