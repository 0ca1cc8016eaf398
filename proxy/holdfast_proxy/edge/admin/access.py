"""Who is an administrator: may see everybody's kernels and drain proxies. A pure decision.

With ``single_user`` everything is that one user's, so the token's holder is; otherwise only users
whom ``admins`` names are. Other proxies ask in their own name, by the cluster key.
"""

from __future__ import annotations

from ...config import ProxyConfig
from ...errors import Forbidden
from ..auth import Identity


def is_admin(identity: Identity, config: ProxyConfig) -> bool:
    """``identity`` as the gate found it."""
    if identity.user is None:
        return identity.forwarded_by is not None
    if config.single_user:
        return identity.user == config.user
    return identity.user in config.admins


def require_admin(identity: Identity, config: ProxyConfig) -> None:
    """Raises Forbidden, which says what an operator can do about it."""
    if not is_admin(identity, config):
        raise Forbidden(
            f"only administrators may ask this, and {identity.user!r} is none: name the user in "
            "`admins` of every proxy's configuration",
            reason="not_an_admin",
        )
