"""Raises the send high-water mark of ipykernel's iopub socket, by a silent request.

ipykernel binds its PUB with libzmq's default of 1,000 messages and drops what is above. libzmq
fixes a new connection's mark when the socket was bound, and changes living ones when the option
is set, so it must be set again after *each* SUB connect; and only the iopub thread may touch the
socket. An empty cell with ``user_expressions`` runs no cell hooks, bumps no counter, writes no
history and binds no name (ipykernel 6 and 7: ``IPythonKernel.do_execute``, ``run_cell("")``
returns at once). The expression waits until the thread has done it and answers the mark, so the
reply is a proof. It knows no sockets: it makes content and reads content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_NAME: Final = "holdfast"
# 23 is ZMQ_SNDHWM; 0 means no limit. Everything is reached by __import__, so that nothing
# that the user defined is used, and lambdas bind no name in the user's namespace.
_EXPRESSION: Final = (
    "(lambda thread, done, marks: ("
    "thread.schedule(lambda: (thread.socket.setsockopt(23, 0),"
    " marks.append(thread.socket.getsockopt(23)), done.set())),"
    " done.wait(3), marks)[-1])"
    "(__import__('ipykernel.kernelapp').kernelapp.IPKernelApp.instance().kernel.iopub_thread,"
    " __import__('threading').Event(), [])"
)


def applies_to(kernel_info: Mapping[str, Any]) -> bool:
    """Whether a kernel_info_reply's content is ipykernel's own."""
    return kernel_info.get("implementation") == "ipython"


def request_content() -> dict[str, Any]:
    """Content of the ``execute_request`` that raises the mark."""
    return {
        "code": "",
        "silent": True,
        "store_history": False,
        "user_expressions": {_NAME: _EXPRESSION},
        "allow_stdin": False,
        "stop_on_error": False,
    }


def is_raised(reply_content: Mapping[str, Any]) -> bool:
    """Whether the kernel confirmed that its mark is off."""
    expressions = reply_content.get("user_expressions")
    result = expressions.get(_NAME) if isinstance(expressions, dict) else None
    data = result.get("data") if isinstance(result, dict) else None
    return isinstance(data, dict) and data.get("text/plain") == "[0]"
