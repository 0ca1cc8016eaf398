"""A token renewer as an organisation would write one: each token is good for one use."""

from __future__ import annotations

from itertools import count
from typing import Any

from jupyter_server.gateway.gateway_client import GatewayTokenRenewerBase


class CountingRenewer(GatewayTokenRenewerBase):
    """Gives the configured token with a number that rises."""

    _numbers = count(1)

    def get_token(
        self, auth_header_key: str, auth_scheme: str | None, auth_token: str, **kwargs: Any
    ) -> str:
        return f"{auth_token}-{next(self._numbers)}"
