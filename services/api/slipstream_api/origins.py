"""Which pages may open a socket, and whose cookies count.

A browser asks nobody before it opens a WebSocket to another site, and sends that site's cookies along: CORS, which
keeps a foreign page from calling with somebody's cookies over HTTP, does not exist there. So the server holds the same
rule itself. Who sends no `Origin` is no browser, and a page of this very host is our own: both are let through. A page
of another origin has to be one that `http.cors` allows, else it is refused before anything else is looked at. One that
may call, but not with credentials (the default: any page, without), gets in without what a browser adds by itself: its
handshake counts by the token that the page knows. Tokens in the query or in a subprotocol are the page's own.

Over HTTP the browser keeps answers from a foreign page, but it sends a simple request, cookies and all, before it knows
that it may not. A request that may change something, and of which the browser says itself that another site made it,
therefore counts by its token as well. (`Origin` and `Host` alone do not tell: many proxies change the latter.)

Source: RFC 6455, section 10.2; the Fetch standard's credentials mode, which this imitates.
"""

import logging
from typing import Final

from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from slipstream_api.auth.refusals import refuse_socket
from slipstream_schemas.errors import Forbidden

log = logging.getLogger("slipstream.auth")

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
REFUSED: Final = "This server is not open to pages of that origin; `http.cors` names those that it is open to."
AMBIENT_SCHEMES: Final = (b"basic ", b"digest ", b"negotiate ", b"ntlm ")
"""What a browser itself puts into `Authorization`; pages cannot set that header on a socket."""


class Origins:
    """An application whose sockets are opened by pages of its own host, or of origins that `http.cors` allows."""

    def __init__(self, app: ASGIApp, cors: CORSConfig) -> None:
        self._app, self._cors = app, cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a socket."""
        origin = _header(scope, b"origin")
        if scope["type"] == ScopeType.WEBSOCKET and origin is not None and not _is_own(scope, origin):
            if not self._cors.is_origin_allowed(origin):
                log.warning("refused a socket of a page of %s", origin[:200])
                await refuse_socket(scope, send, Forbidden(REFUSED))
                return
            self._count_no_cookies(scope, origin)
        elif _is_foreign_change(scope):
            self._count_no_cookies(scope, origin or "")
        await self._app(scope, receive, send)

    def _count_no_cookies(self, scope: Scope, origin: str) -> None:
        """Take out what the browser added by itself, unless pages of this origin may call with credentials."""
        cors = self._cors
        if cors.allow_credentials and not cors.is_allow_all_origins and cors.is_origin_allowed(origin):
            return
        scope["headers"] = [each for each in scope["headers"] if not _is_ambient(*each)]


def _is_own(scope: Scope, origin: str) -> bool:
    """Whether the page comes from where it calls. A proxy that ends TLS changes the scheme, so that is not compared."""
    host = _header(scope, b"host")
    return host is not None and origin.partition("://")[2].lower() == host.lower()


def _is_foreign_change(scope: Scope) -> bool:
    """Whether a browser says that another site asks for this, and it may change something."""
    if scope["type"] != ScopeType.HTTP or scope["method"] in SAFE:
        return False
    return _header(scope, b"sec-fetch-site") == "cross-site"


def _is_ambient(name: bytes, value: bytes) -> bool:
    """Whether a browser adds this header by itself, to say who its user is."""
    return name == b"cookie" or (name == b"authorization" and value.lower().startswith(AMBIENT_SCHEMES))


def _header(scope: Scope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)
