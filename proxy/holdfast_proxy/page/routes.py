"""``/cluster`` and what belongs to it: who may see it, sign-in and sign-out, files, live data.

Everything is below ``<base>cluster``, and so is the cookie's path: a browser never sends it with
a call of the Jupyter API, and nothing outside this module looks at it. These handlers are public
to the application's gate, which knows tokens only; instead every one of them passes ``_admit`` or
``_own_page_only`` here. A script may use a token in a header, as everywhere.

Must not know how snapshots are made. Rejected: the cookie as another credential at the gate (then
every route would need protection against requests that other pages forge); JSON for the sign-in
(a plain form works without script and lets the browser's password manager fill it).
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from ..config import ProxyConfig, Secret
from ..edge.auth import Authenticator, Identity, check_origin
from ..edge.context import IDENTITY
from ..errors import BadRequest, Forbidden, Unauthorized
from .attempts import Attempts
from .documents import SECURITY, Documents
from .sessions import LIFETIME, Session, Sessions

#: A token that is longer than this many characters is none.
_MAX_TOKEN: Final = 4096
#: Bytes of a form that is looked at: three for each byte of a token, and its name. Who sends it is
#: not known yet, and a form of megabytes takes long to take apart.
_MAX_FORM: Final = 4 * _MAX_TOKEN
_log: Final = structlog.get_logger("holdfast.page")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the page. ``session`` is None for a token in a header and an open proxy."""

    identity: Identity
    session: Session | None = None


class PageRoutes:
    """The handlers of the cluster page of one proxy.

    ``snapshot`` and ``events`` answer the cluster's state as JSON and as server-sent events; they
    find the identity in the request, as behind the gate. ``allow`` raises Forbidden for who is no
    admin. ``clock``: seconds since 1970, the same on every proxy, because cookies are shared;
    ``ticks``: seconds of a clock that nobody sets, for what only this process counts.
    """

    def __init__(
        self,
        config: ProxyConfig,
        authenticator: Authenticator,
        *,
        snapshot: Handler,
        events: Handler,
        allow: Callable[[Identity], None],
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self._snapshot = snapshot
        self._events = events
        self._allow = allow
        self._clock = clock
        self._ticks = ticks
        self._sessions = _sessions_of(config)
        self._attempts = Attempts()
        self._documents = Documents(cluster=config.cluster, base=config.base_url)

    def __repr__(self) -> str:
        return f"<PageRoutes {self._documents!r} {self._attempts!r}>"

    def routes(self) -> list[web.RouteDef]:
        """What the application registers. All of it must be public to the gate."""
        path = f"{self._config.base_url}cluster"
        return [
            web.get(path, self.page),
            web.get(f"{path}/snapshot", self.snapshot),
            web.get(f"{path}/events", self.events, allow_head=False),
            web.post(f"{path}/sign-in", self.sign_in),
            web.get(f"{path}/sign-in", self.to_page),
            web.post(f"{path}/sign-out", self.sign_out),
            web.get(f"{path}/static/{{name}}", self.static),
        ]

    @property
    def handlers(self) -> frozenset[Handler]:
        """All of ``routes``, for the gate."""
        return frozenset(
            (
                *(self.page, self.snapshot, self.events, self.static),
                *(self.sign_in, self.to_page, self.sign_out),
            )
        )

    async def page(self, request: web.Request) -> web.Response:
        """The page, or the form for who is not signed in."""
        try:
            viewer = self._admit(request)
        except Unauthorized:
            return self._form(status=401)
        except Forbidden as error:
            return self._form(error.message, status=403)
        user = viewer.identity.user or ""
        return _html(self._documents.page(user=user, signed_in=viewer.session is not None))

    async def to_page(self, _: web.Request) -> web.StreamResponse:
        """Whoever reloads a refused form."""
        return self._see_page()

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """The state once: how the page learns why its stream does not come about."""
        request[IDENTITY] = self._admit(request).identity
        return await self._snapshot(request)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The state as it changes, until the session ends."""
        viewer = self._admit(request)
        request[IDENTITY] = viewer.identity
        if viewer.session is None:
            return await self._events(request)
        # A stream that was opened in time must not outlive its session.
        left = max(0.0, viewer.session.expires - self._clock())
        ending = asyncio.get_running_loop().call_later(left, _hang_up, request)
        try:
            return await self._events(request)
        finally:
            ending.cancel()

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """The form's target: a cookie for a right token, the form again for a wrong one."""
        self._own_page_only(request)
        address = request.remote or ""
        wait = self._attempts.wait(address, now=self._ticks())
        if wait > 0:
            seconds = math.ceil(wait)
            message = f"Too many wrong tokens from your address. Try again in {seconds} s."
            return self._form(message, status=429, headers={"Retry-After": str(seconds)})
        try:
            identity = self._authenticator.identify(_credential(await _token_of(request)), {})
        except Unauthorized:
            self._attempts.failed(address, now=self._ticks())
            _log.warning("sign-in refused", address=address)
            return self._form("This token is not one of this cluster's.", status=401)
        if self._authenticator.is_open or identity.user is None:
            return self._see_page()
        try:
            self._allow(identity)
        except Forbidden as error:
            return self._form(error.message, status=403)
        _log.info("signed in", user=identity.user, address=address)
        response = self._see_page()
        cookie = self._sessions.issue(identity.user, now=self._clock())
        self._set_cookie(request, response, cookie)
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """Take the cookie away."""
        self._own_page_only(request)
        response = self._see_page()
        self._set_cookie(request, response, "")
        return response

    async def static(self, request: web.Request) -> web.Response:
        """A file of the page. No secret is in it, and the form needs it, too."""
        asset = self._documents.asset(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        # Asked for anew each time, and answered 304: proxies of two versions share one address.
        headers = {**SECURITY, "Cache-Control": "no-cache", "ETag": f'"{asset.tag}"'}
        known = request.if_none_match or ()
        if any(tag.value in (asset.tag, "*") for tag in known):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=asset.content, content_type=asset.content_type, charset="utf-8", headers=headers
        )

    def _admit(self, request: web.Request) -> Viewer:
        """Who asks. Raises Unauthorized, or Forbidden for a foreign page or who is no admin."""
        self._own_page_only(request)
        viewer = self._viewer(request)
        self._allow(viewer.identity)
        return viewer

    def _viewer(self, request: web.Request) -> Viewer:
        if hdrs.AUTHORIZATION not in request.headers and not self._authenticator.is_open:
            cookie = request.cookies.get(self._sessions.cookie_name)
            session = self._sessions.check(cookie, now=self._clock())
            if session is None:
                raise Unauthorized("sign in, or send a token", reason="unauthorized")
            return Viewer(Identity(session.user), session)
        return Viewer(self._authenticator.identify(request.headers, {}))

    def _own_page_only(self, request: web.Request) -> None:
        """Refuse what another page asks for. SameSite does not do it: ports are one site."""
        origins = tuple(origin for origin in self._config.allow_origin if origin != "*")
        check_origin(request.headers, allowed=origins, is_open=self._authenticator.is_open)
        site = request.headers.get("Sec-Fetch-Site", "none")
        if request.method == "POST" and site not in ("same-origin", "none"):
            raise Forbidden("only the page itself may ask for this", reason="foreign_origin")

    def _set_cookie(self, request: web.Request, response: web.StreamResponse, value: str) -> None:
        # Behind a proxy that ends TLS the socket is plain; the browser says what it sees.
        secure = request.secure or request.headers.get("Origin", "").startswith("https:")
        response.set_cookie(
            self._sessions.cookie_name,
            value,
            max_age=LIFETIME if value else 0,
            path=f"{self._config.base_url}cluster",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )

    def _form(
        self, message: str = "", *, status: int, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        return _html(self._documents.form(message=message), status=status, headers=headers)

    def _see_page(self) -> web.Response:
        location = f"{self._config.base_url}cluster"
        headers = {**SECURITY, "Cache-Control": "no-store", "Location": location}
        return web.Response(status=303, headers=headers)


def _sessions_of(config: ProxyConfig) -> Sessions:
    tokens = {user.name: user.token.reveal() for user in config.users if user.token is not None}
    if config.token is not None:
        tokens[config.user] = config.token.reveal()
    secret = config.cluster_key or Secret(secrets.token_hex(32))
    return Sessions(
        key=secret.reveal().encode("utf-8", "surrogateescape"),
        cluster=config.cluster,
        tokens=tokens,
    )


async def _token_of(request: web.Request) -> str:
    """The form's field. Raises BadRequest for another body than a plain form."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise BadRequest("send the token as a form field named token")
    if request.content_length is None or request.content_length > _MAX_FORM:
        raise BadRequest(f"a token's form has a Content-Length of {_MAX_FORM} at most")
    try:
        token = (await request.post()).get("token")
    except (LookupError, ValueError) as error:
        raise BadRequest("the form cannot be read: send it as UTF-8") from error
    return token.strip()[:_MAX_TOKEN] if isinstance(token, str) else ""


def _credential(token: str) -> Mapping[str, str]:
    return {hdrs.AUTHORIZATION: f"Bearer {token}"}


def _html(
    text: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        text=text,
        content_type="text/html",
        status=status,
        headers={**SECURITY, "Cache-Control": "no-store", **(headers or {})},
    )


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()
