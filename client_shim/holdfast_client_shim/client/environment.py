"""Which variables go with a start: what a Jupyter Server sends to its gateway. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def kernel_environment(
    own: Mapping[str, str],
    asked: Mapping[str, str],
    *,
    kernel_id: str,
    allowed: str,
    user: str | None,
    cwd: object,
) -> dict[str, str]:
    """``KERNEL_*`` and those that ``allowed`` (separated by commas) names, of this process's
    ``own`` variables and of those ``asked`` for, which come first.

    ``cwd``: where the notebook is, unless the variables say so; ``user``: likewise. The id is
    always the one given: this process may itself run in a kernel.
    """
    names = {name.strip() for name in allowed.split(",")}
    given = {**own, **asked}
    env = {k: v for k, v in given.items() if k.startswith("KERNEL_") or k in names}
    env["KERNEL_ID"] = kernel_id
    if cwd is not None:
        env.setdefault("KERNEL_WORKING_DIR", str(cwd))
    if user:
        env.setdefault("KERNEL_USERNAME", user)
    return env
