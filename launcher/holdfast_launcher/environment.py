"""What a kernel's environment is made of: a decision over names, pure.

It must not read ``os.environ`` itself: the caller passes the launcher's variables in. A kernel
gets a short list of the launcher's own variables, what the administrator passes through, and from
the client ``KERNEL_*`` and whitelisted names; never the launcher's whole environment, which may
hold its secrets. What changes which code a kernel loads is refused from clients, whitelisted or
not: a name in a request must not become code in a process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Every process of one kernel carries this; it tells them from everybody else's.
MARK = "HOLDFAST_KERNEL"

#: Taken from the launcher's own environment, because programs do not work without them.
_BASE = frozenset(
    [
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TERM",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "LD_LIBRARY_PATH",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "JUPYTER_PATH",
        "JUPYTER_DATA_DIR",
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_RUNTIME_DIR",
        "IPYTHONDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
    ]
)
_BASE_PREFIXES = ("LC_",)

_REFUSED = frozenset(
    [
        "PATH",
        "ENV",
        "IFS",
        "PS4",
        "SHELLOPTS",
        "BASHOPTS",
        "CDPATH",
        "PROMPT_COMMAND",
        "HOME",
        "SHELL",
        "TMPDIR",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "NODE_OPTIONS",
        "NODE_PATH",
        "RUBYOPT",
        "RUBYLIB",
        "PERL5LIB",
        "PERL5OPT",
        "PERL5DB",
        "PERLLIB",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "CLASSPATH",
        "R_PROFILE",
        "R_ENVIRON",
        "R_HOME",
        "R_LIBS",
        "R_LIBS_USER",
        "R_LIBS_SITE",
        "JULIA_LOAD_PATH",
        "JULIA_DEPOT_PATH",
        "JULIA_PROJECT",
        "LUA_PATH",
        "LUA_CPATH",
        "LUA_INIT",
        "MALLOC_CONF",
    ]
)
_REFUSED_PREFIXES = (
    *("LD_", "DYLD_", "PYTHON", "BASH_", "HOLDFAST_", "IPYTHON", "JUPYTER_", "_RLD", "MALLOC_"),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class KernelEnvironment:
    """``variables`` for the kernel; ``refused`` names what the client asked for in vain."""

    variables: Mapping[str, str]
    refused: tuple[str, ...]


def is_refused(name: str) -> bool:
    """Whether a client may never set this variable."""
    return name in _REFUSED or name.startswith(_REFUSED_PREFIXES)


def base_environment(own: Mapping[str, str], passthrough: Iterable[str] = ()) -> dict[str, str]:
    """The part of the launcher's variables that keepers and kernels inherit."""
    names = _BASE.union(passthrough)
    return {
        name: value
        for name, value in own.items()
        if name in names or name.startswith(_BASE_PREFIXES)
    }


def kernel_environment(
    *,
    kernel_id: str,
    nonce: str,
    base: Mapping[str, str],
    requested: Mapping[str, str],
    whitelist: frozenset[str],
) -> KernelEnvironment:
    """The whole environment of one kernel. Pure."""
    variables = dict(base)
    refused = []
    for name, value in requested.items():
        allowed = name.startswith("KERNEL_") or name in whitelist
        sound = _NAME.fullmatch(name) is not None and "\0" not in value
        if allowed and sound and not is_refused(name):
            variables[name] = value
        else:
            refused.append(name)
    variables["KERNEL_ID"] = kernel_id
    variables[MARK] = kernel_mark(kernel_id, nonce)
    return KernelEnvironment(variables, tuple(sorted(refused)))


def kernel_mark(kernel_id: str, nonce: str) -> str:
    """What ``MARK`` holds: tells the incarnation without telling the nonce."""
    return hashlib.sha256(f"{kernel_id}\0{nonce}".encode()).hexdigest()[:24]
