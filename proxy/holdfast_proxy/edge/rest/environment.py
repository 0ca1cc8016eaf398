"""Which environment variables of a client reach a kernel. Pure.

``KERNEL_*`` and what the configuration lists pass; what is neither is dropped, as the gateways
before us did, because clients send what they happen to have. Variables that decide what code a
program loads are refused aloud, wherever they come from: a client that sends ``LD_PRELOAD`` must
learn that it had no effect. Must not know HTTP or where a kernel runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from ...errors import BadRequest

MAX_VALUE_CHARACTERS: Final = 4096
MAX_VARIABLES: Final = 256

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_REFUSED_PREFIXES: Final = ("LD_", "DYLD_", "PYTHON", "BASH_FUNC_")
_REFUSED: Final = frozenset(
    {
        *("PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND"),
        *("ZDOTDIR", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "HOSTALIASES"),
        *("PERL5LIB", "PERL5OPT", "PERLLIB", "RUBYLIB", "RUBYOPT", "NODE_OPTIONS", "NODE_PATH"),
        *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"),
        *("R_HOME", "R_PROFILE", "R_PROFILE_USER", "R_ENVIRON", "R_ENVIRON_USER", "R_LIBS"),
        *("R_LIBS_USER", "JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "IPYTHONDIR", "JUPYTER_PATH"),
        *("JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "JUPYTER_DATA_DIR"),
    }
)


def is_refused(name: str) -> bool:
    """Whether a variable decides what code runs, so that no client may set it."""
    return name in _REFUSED or name.startswith(_REFUSED_PREFIXES)


def kernel_environment(
    env: Mapping[str, Any], *, whitelist: Collection[str], user: str
) -> dict[str, str]:
    """What of ``env`` a kernel gets. Raises BadRequest naming the variable, never its value.

    KERNEL_ID is left out (it is the kernel's id already), and KERNEL_USERNAME, if given, becomes
    the user of the token: a client cannot claim another name.
    """
    if len(env) > MAX_VARIABLES:
        raise BadRequest(f"env has more than {MAX_VARIABLES} variables")
    passed: dict[str, str] = {}
    for name, value in env.items():
        if _NAME.fullmatch(name) is None:
            raise BadRequest(f"env: {name[:64]!r} is not the name of a variable")
        if is_refused(name):
            raise BadRequest(f"env: {name} decides what code runs and cannot be set by a client")
        if not (name.startswith("KERNEL_") or name in whitelist):
            continue
        if not isinstance(value, str) or "\0" in value:
            raise BadRequest(f"env: the value of {name} must be a string without NUL")
        if len(value) > MAX_VALUE_CHARACTERS:
            raise BadRequest(
                f"env: the value of {name} is longer than {MAX_VALUE_CHARACTERS} characters"
            )
        passed[name] = value
    passed.pop("KERNEL_ID", None)
    if "KERNEL_USERNAME" in passed:
        passed["KERNEL_USERNAME"] = user
    return passed
