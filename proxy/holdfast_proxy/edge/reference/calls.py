"""The calls that a proxy's clients may make, written down once.

The application registers its routes from this table and the OpenAPI document is made from it, so
that neither can tell of a call that the other does not know. What only proxies, launchers,
administrators and the cluster page call is not here. Must not know what handlers do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from .. import health, internal
from ..rest import kernel_log, kernels, kernelspecs, me, sessions
from ..websocket.channels import channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parameter of the query string."""

    name: str
    about: str
    type: str = "string"
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. ``path`` is below the base path, as aiohttp writes it; ``answers``: status →
    (sentence, name of a schema, or None for no body); ``body``: the schema of what is sent."""

    method: str
    path: str
    handler: Handler
    tag: str
    about: str
    answers: Mapping[int, tuple[str, str | None]]
    body: str | None = None
    query: Sequence[Query] = ()
    errors: Sequence[int] = field(default_factory=tuple)
    head: bool = True
    public: bool = False
    media: str = "application/json"

    @property
    def name(self) -> str:
        """A name that is unique in the table."""
        return self.handler.__name__

    def route(self, base: str) -> web.RouteDef:
        """What the application registers."""
        path = base + self.path
        if self.method == "GET":
            return web.get(path, self.handler, allow_head=self.head)
        return web.route(self.method, path, self.handler)


_KERNEL: Final = "api/kernels/{kernel_id}"
_SESSION: Final = "api/sessions/{session_id}"
_STARTING: Final = "The model; Location says where it is"

CALLS: Final[tuple[Call, ...]] = (
    Call(
        method="GET",
        path="api",
        handler=internal.api_version,
        tag="server",
        about="The version of this proxy.",
        answers={200: ("The version", "Version")},
    ),
    Call(
        method="GET",
        path="api/status",
        handler=internal.api_status,
        tag="server",
        about="How much your kernels are used.",
        answers={200: ("The figures", "Status")},
        errors=(503,),
    ),
    Call(
        method="GET",
        path="api/me",
        handler=me.get_me,
        tag="server",
        about="Who you are, and which of the permissions that you ask for you have.",
        query=(
            Query(
                name="permissions", about='JSON, such as {"kernels": ["read", "write", "execute"]}'
            ),
        ),
        answers={200: ("You", "Me")},
        errors=(400,),
    ),
    Call(
        method="GET",
        path="api/kernelspecs",
        handler=kernelspecs.list_kernelspecs,
        tag="kernelspecs",
        about="The kernels that can be started.",
        query=(Query(name="user", about="Understood as Jupyter Server sends it, and ignored"),),
        answers={200: ("All of them, and which one is the default", "Kernelspecs")},
        errors=(503,),
    ),
    Call(
        method="GET",
        path="api/kernelspecs/{name}",
        handler=kernelspecs.get_kernelspec,
        tag="kernelspecs",
        about="One kernelspec.",
        answers={200: ("The kernelspec", "Kernelspec")},
        errors=(404, 503),
    ),
    Call(
        method="GET",
        path="kernelspecs/{name}/{path:.+}",
        handler=kernelspecs.get_resource,
        tag="kernelspecs",
        about="A kernelspec's file, such as its logo. kernel.json is not given away.",
        answers={200: ("The file", "File")},
        errors=(404, 503),
        media="*/*",
    ),
    Call(
        method="GET",
        path="api/kernels",
        handler=kernels.list_kernels,
        tag="kernels",
        about="Your kernels: all of them, or 503.",
        answers={200: ("The kernels", "Kernels")},
        errors=(503,),
    ),
    Call(
        method="POST",
        path="api/kernels",
        handler=kernels.start_kernel,
        tag="kernels",
        about=(
            "Start a kernel; without a body, the default one. With KERNEL_ID in env the call may "
            "be repeated: it starts one kernel."
        ),
        body="StartKernel",
        answers={201: (_STARTING, "Kernel")},
        errors=(400, 409, 500, 503),
    ),
    Call(
        method="GET",
        path=_KERNEL,
        handler=kernels.get_kernel,
        tag="kernels",
        about="One kernel, as its keeper says that it is now.",
        answers={200: ("The kernel", "Kernel")},
        errors=(404, 503),
    ),
    Call(
        method="DELETE",
        path=_KERNEL,
        handler=kernels.delete_kernel,
        tag="kernels",
        about="End a kernel.",
        answers={204: ("It has ended", None)},
        errors=(404, 503),
    ),
    Call(
        method="POST",
        path=f"{_KERNEL}/interrupt",
        handler=kernels.interrupt_kernel,
        tag="kernels",
        about="Interrupt what a kernel does.",
        body="Nothing",
        answers={204: ("It was interrupted", None)},
        errors=(404, 503),
    ),
    Call(
        method="POST",
        path=f"{_KERNEL}/restart",
        handler=kernels.restart_kernel,
        tag="kernels",
        about="Restart a kernel; answers when it is up again.",
        body="Nothing",
        answers={200: ("The kernel", "Kernel")},
        errors=(404, 500, 503),
    ),
    Call(
        method="GET",
        path=f"{_KERNEL}/channels",
        handler=channels,
        tag="kernels",
        about=(
            "The websocket to a kernel. Subprotocols: v1.kernel.websocket.jupyter.org, "
            "v1.stream.holdfast, or none (JSON). A client that comes back with the same "
            "session_id is given what it missed."
        ),
        query=(Query(name="session_id", about="A name of the client's own for its connection"),),
        answers={101: ("The connection is a websocket now", None)},
        errors=(400, 404, 503),
        head=False,
    ),
    Call(
        method="GET",
        path=f"{_KERNEL}/log",
        handler=kernel_log.read_log,
        tag="kernels",
        about="The messages that a kernel's log still has, one JSON object a line.",
        query=(
            Query(name="from", about="The first entry", type="integer"),
            Query(name="session", about="Also what was for this session alone"),
            Query(name="limit", about="How many lines at most", type="integer"),
        ),
        answers={200: ("Lines", "Lines")},
        errors=(400, 404, 410, 503),
        head=False,
        media="application/x-ndjson",
    ),
    Call(
        method="GET",
        path=f"{_KERNEL}/output",
        handler=kernel_log.read_output,
        tag="kernels",
        about="The ends of what a kernel and its keeper wrote to stdout and stderr.",
        query=(Query(name="lines", about="How many lines of each", type="integer"),),
        answers={200: ("The output", "Output")},
        errors=(400, 404, 503),
    ),
    Call(
        method="GET",
        path="api/sessions",
        handler=sessions.list_sessions,
        tag="sessions",
        about="Your sessions whose kernel is there: all of them, or 503.",
        answers={200: ("The sessions", "Sessions")},
        errors=(503,),
    ),
    Call(
        method="POST",
        path="api/sessions",
        handler=sessions.open_session,
        tag="sessions",
        about="Open a session: the one of this path, or a new one and its kernel.",
        body="OpenSession",
        answers={201: (_STARTING, "Session")},
        errors=(400, 500, 503),
    ),
    Call(
        method="GET",
        path=_SESSION,
        handler=sessions.get_session,
        tag="sessions",
        about="One session, with its kernel as it is now.",
        answers={200: ("The session", "Session")},
        errors=(404, 503),
    ),
    Call(
        method="PATCH",
        path=_SESSION,
        handler=sessions.change_session,
        tag="sessions",
        about="Rename a session, or give it another kernel; its old one ends.",
        body="ChangeSession",
        answers={200: ("The session", "Session")},
        errors=(400, 404, 500, 503),
    ),
    Call(
        method="DELETE",
        path=_SESSION,
        handler=sessions.close_session,
        tag="sessions",
        about="Close a session and end its kernel.",
        answers={204: ("Both are gone", None)},
        errors=(404, 410, 503),
    ),
    Call(
        method="GET",
        path="holdfast/v1/endpoints",
        handler=internal.endpoints,
        tag="cluster",
        about="The proxies of this cluster.",
        answers={200: ("The proxies", "Endpoints")},
    ),
    Call(
        method="GET",
        path="holdfast/v1/whoami",
        handler=internal.whoami,
        tag="cluster",
        about="Which proxy this is.",
        answers={200: ("This proxy", "WhoAmI")},
        public=True,
    ),
    Call(
        method="GET",
        path="livez",
        handler=health.livez,
        tag="cluster",
        about="Whether this process runs.",
        answers={200: ("It does", "Liveness")},
        public=True,
    ),
    Call(
        method="GET",
        path="readyz",
        handler=health.readyz,
        tag="cluster",
        about="Whether a load balancer should send clients here.",
        answers={200: ("It should", "Readiness"), 503: ("It should not", "Readiness")},
        public=True,
    ),
)


def parameters_of(path: str) -> list[str]:
    """The names in an aiohttp path, in order."""
    return [part.partition("}")[0].partition(":")[0] for part in path.split("{")[1:]]


def template_of(path: str) -> str:
    """An aiohttp path as OpenAPI writes it: ``{path:.+}`` is ``{path}``."""
    return "".join(
        part
        if not n
        else "{" + part.partition("}")[0].partition(":")[0] + "}" + part.partition("}")[2]
        for n, part in enumerate(path.split("{"))
    )
