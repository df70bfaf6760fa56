"""Access to the studio: every request and web socket is checked here first.

Refused: a foreign Host on a studio that only this machine reaches (a page that rebinds its name to
127.0.0.1), a foreign Origin, whatever changes something and does not come from a page of the
studio, a missing token, a body above MAX_BODY, more than MAX_PAGES open pages.
"""

import ipaddress
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 4 << 20  # bytes: the names of all faces of a large set, selected at once
SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing; web sockets have none
MAX_PAGES = 100  # that are open, or were a minute ago: each costs memory
HEADERS = {
    # A page loads nothing from elsewhere, and no other site may frame it.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the address may hold the token
    "cross-origin-resource-policy": "same-origin",  # no picture in a page of another port
}


class TooLarge(Exception):
    """A request body exceeded MAX_BODY while it was received."""


class Guard:
    """The ASGI app `app` behind the checks; with `token` None, no token is required.

    `count_pages` tells how many pages are open; a path of which `is_page` is true opens another.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        token: str | None,
        is_page: Callable[[str], bool] = lambda _: False,
        count_pages: Callable[[], int] = lambda: 0,
    ) -> None:
        self._app, self._is_page, self._count_pages = app, is_page, count_pages
        self._local = is_local(host)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal:
                await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
            else:
                await self._app(scope, receive, send)
        elif refusal:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
        elif self._token and "token" in dict(parse_qsl(scope["query_string"].decode("latin-1"))):
            await self._enter(scope, receive, send)
        else:
            await self._pass(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """(status, reason), None when the request may pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._local and not self._token and not is_local(_name_of(host)):
            return 403, "foreign host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "foreign origin"
        site = headers.get("sec-fetch-site")
        if site in ("cross-site", "same-site") and _is_embedded(headers):
            return 403, "foreign page"
        # A browser says where every request that is not a plain GET comes from.
        if scope.get("method", "") not in SAFE and origin is None and site != "same-origin":
            return 403, "no Origin; a script must send the studio's own address as Origin"
        if self._token and not self._knows_token(scope, headers):
            return 403, "the address of the studio ends in ?token=...; it was printed at its start"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"more than {MAX_BODY} bytes"
        if self._is_page(scope["path"]) and self._count_pages() >= MAX_PAGES:
            return 503, f"{MAX_PAGES} pages are open; close some, or wait a minute"
        return None

    def _knows_token(self, scope: Scope, headers: Headers) -> bool:
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie(scope))
        except CookieError:
            cookie = None
        known = [value for value in (given, cookie and cookie.value) if value]
        return any(secrets.compare_digest(v.encode(), self._token.encode()) for v in known)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Moves the token from the address into a cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # Two slashes would begin another host's address.
        path = "/" + quote(scope["path"].lstrip("/\\"))
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), 303, HEADERS)
        response.set_cookie(self._cookie(scope), self._token, httponly=True, samesite="lax")
        await response(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self._app(scope, counted, with_headers)
        except TooLarge:
            if not started:
                await PlainTextResponse(f"more than {MAX_BODY} bytes", 413)(scope, receive, send)

    @staticmethod
    def _cookie(scope: Scope) -> str:
        """The name of the cookie, one for each port: all ports of a host share their cookies."""
        return f"odfs_studio_{(scope.get('server') or ('', 0))[1]}"


def is_local(host: str) -> bool:
    """True for the names and addresses that reach only this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The name or address in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_embedded(headers: Headers) -> bool:
    """True unless a link is followed, which may be done from anywhere: a fetch, frame or image."""
    return (
        headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"
    )
