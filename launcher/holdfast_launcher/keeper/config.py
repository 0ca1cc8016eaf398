"""What a keeper is told when it is started: one frozen value, JSON on the way in.

It knows no defaults of the launcher and reads no environment: a keeper is configured by the one
who starts it and by nothing else, so that two keepers with the same config behave the same.
Rejected: command line arguments (the credential would be in argv, for every user to read).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

_MIB = 1024 * 1024


class KeeperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one keeper. Sizes are bytes, times are seconds."""

    kernel_id: str
    #: The start nonce of this kernel's record: a start with another one is refused.
    nonce: str
    #: Name of the kernelspec.
    spec: str
    user: str
    #: Variables for the kernel, on top of what the kernelspec says.
    env: dict[str, str] = msgspec.field(default_factory=dict)
    #: The kernel's working directory; None leaves it to the kernel side.
    path: str | None = None
    #: 0700, on the node's own disk; created when missing.
    state_dir: str
    #: A loopback address serves plain HTTP, any other TLS with a pinned certificate.
    host: str = "127.0.0.1"
    #: 0 binds a free port; ``keeper.json`` says which.
    port: int = 0
    #: What every request must carry as ``Authorization: Bearer``.
    credential: str
    kernelspec_dirs: list[str] = msgspec.field(default_factory=list)
    log_memory_bytes: int = 8 * _MIB
    log_disk_bytes: int = 1024 * _MIB
    #: Where the node's keepers agree on what their logs have on disk together (``log/quota.py``);
    #: None: nothing but ``log_disk_bytes`` bounds this one.
    log_quota_dir: str | None = None
    #: What a burst may take of memory until a reader has taken it or the disk has (a second).
    log_burst_bytes: int = 128 * _MIB
    #: The longest Jupyter message that a client may send.
    message_bytes: int = 512 * _MIB
    #: What clients may have waiting while no kernel takes messages.
    held_bytes: int = 64 * _MIB
    #: How long an absent session holds back trimming when the log is under pressure.
    session_age: float = 7 * 24 * 3600.0
    #: Restarts after crashes before the kernel is said to be dead.
    autorestart_limit: int = 5
    #: Between keeper and kernel: "ipc" or "tcp".
    transport: str = "ipc"
    #: Take over the living kernel that the state directory describes, instead of starting one.
    adopt: bool = False

    def __repr__(self) -> str:
        # env and credential may hold secrets; a repr ends up in logs.
        return f"KeeperConfig(kernel_id={self.kernel_id!r}, spec={self.spec!r})"

    @property
    def directory(self) -> Path:
        return Path(self.state_dir)

    @classmethod
    def from_json(cls, data: bytes | str) -> KeeperConfig:
        """Parse. Raises msgspec.ValidationError that names the field."""
        return msgspec.json.decode(data, type=cls)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)
