"""``python -m support.chaos.inside.launcher``: a launcher whose tokens and effects are noted."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any

from holdfast_launcher import __main__ as command
from holdfast_launcher import service
from holdfast_launcher.agent import agent as agent_module
from holdfast_launcher.agent.endings import Endings
from holdfast_launcher.agent.incarnation import Incarnation
from holdfast_launcher.agent.launching import StartOrder
from holdfast_protocol.fencing import Token

from .trace import Trace

_TRACE = Trace("launcher")
_token: ContextVar[Token | None] = ContextVar("token", default=None)


def _pair(token: Token) -> tuple[int, int]:
    era, revision = token.as_list()
    return era, revision


class TracedEndings(Endings):
    async def end(self, kernel: Incarnation, fence: Token) -> None:
        _TRACE.acted(kernel.kernel_id, "end", _pair(fence))
        await super().end(kernel, fence)


class TracedAgent(agent_module.Agent):
    async def acknowledge(self, kernel_id: str, fence: Token) -> Token:
        answer = await super().acknowledge(kernel_id, fence)
        _TRACE.fenced(kernel_id, _pair(fence))
        return answer

    async def put(self, kernel_id: str, fence: Token, order: StartOrder) -> dict[str, Any]:
        _token.set(fence)
        return await super().put(kernel_id, fence, order)

    async def _start(self, kernel_id: str, order: StartOrder) -> Incarnation:
        token = _token.get()
        if token is not None:
            _TRACE.acted(kernel_id, "start", _pair(token))
        return await super()._start(kernel_id, order)


if __name__ == "__main__":
    agent_module.Endings = TracedEndings  # type: ignore[misc]
    service.Agent = TracedAgent  # type: ignore[misc]
    sys.exit(command.main())
