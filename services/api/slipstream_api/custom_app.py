"""The user's own ASGI application (`http.app`) beside ours, in one process and behind one port.

Theory of operation. A path of ours is ours whatever the method; every other one goes to the user's application
untouched, which Litestar's own mounting would not leave it (it adds slashes and decodes). `/info` goes there first, and
comes to us when the application knows nothing of it. The application's lifespan encloses all requests. Middleware that
was added to a Starlette application stands before our routes too, as its author expects: a request passes it once, on
whichever side it ends. `middleware_order: auth_first` puts it behind our authentication.

The user's code shares the event loop of the API: what blocks it blocks every stream.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final

from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from slipstream_api.http_settings import HttpSettings
from slipstream_api.route_groups import SHADOWABLE
from slipstream_schemas.limits import CUSTOM_APP_START_S, CUSTOM_APP_STOP_S
from slipstream_schemas.user_code import BadConfig

log = logging.getLogger("slipstream.api")

NOT_FOUND: Final = 404
REFUSED: Final = frozenset({401, 403})
Middleware = tuple[Any, tuple[Any, ...], dict[str, Any]]


def middleware_of(app: Any) -> list[Middleware]:
    """What was added to a Starlette (or FastAPI) application, outermost first. Raises: BadConfig."""
    found: list[Middleware] = []
    for each in getattr(app, "user_middleware", ()):
        try:
            factory, arguments, options = each
        except (TypeError, ValueError) as error:
            raise BadConfig("http.app: its middleware cannot be read; Starlette 0.35 or later is needed") from error
        found.append((factory, tuple(arguments), dict(options)))
    return found


def inner_middleware(http: HttpSettings) -> list[DefineMiddleware]:
    """The user's middleware, for behind our authentication. Raises: BadConfig."""
    if http.config.middleware_order != "auth_first":
        return []
    return [DefineMiddleware(made, *arguments, **options) for made, arguments, options in middleware_of(http.app)]


def behind_middleware(ours: ASGIApp, http: HttpSettings) -> ASGIApp:
    """Our application behind the user's middleware. Raises: BadConfig."""
    if http.config.middleware_order == "auth_first" or not middleware_of(http.app):
        return ours
    stacked: Any = ours
    for made, arguments, options in reversed(middleware_of(http.app)):
        stacked = made(stacked, *arguments, **options)

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's middleware finds its application here; ours puts itself in its place.
        scope["app"] = http.app
        await stacked(scope, receive, send)

    return named


class Beside:
    """Our application and the user's. `state` is what the lifespan of the latter has made.

    `is_guarded`: theirs refuses whom it does not know, and ours answers them on the one path that both may have.
    """

    def __init__(
        self, ours: ASGIApp, theirs: Any, own: re.Pattern[str], cors: CORSConfig, state: dict[str, Any],
        *, is_guarded: bool = False,
    ) -> None:  # fmt: skip
        self._ours, self._theirs, self._own, self._cors, self._state = ours, theirs, own, cors, state
        self._not_theirs = {NOT_FOUND, *(REFUSED if is_guarded else ())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a socket."""
        path = scope["path"]
        if _is_preflight(scope) or (path != SHADOWABLE and self._own.fullmatch(path)):
            await self._ours(scope, receive, send)
            return
        # What one application writes into the scope is no concern of the other.
        given: Any = {**scope, "state": dict(self._state)}
        shown = self._readable(scope, send)
        if path != SHADOWABLE or scope["type"] != ScopeType.HTTP:
            await self._theirs(given, receive, shown)
            return
        answer = _Unless(self._not_theirs, shown)
        await self._theirs(given, receive, answer)
        if answer.is_withheld:
            await self._ours(scope, receive, send)

    def _readable(self, scope: Scope, send: Send) -> Send:
        """An answer of the user's application that a page of another origin may read, as it may read ours."""
        origin = _header(scope, b"origin")
        if origin is None:
            return send
        added = {name.lower(): value for name, value in self._cors.simple_headers.items()}
        if not self._cors.is_allow_all_origins and self._cors.is_origin_allowed(origin):
            added |= {"access-control-allow-origin": origin, "vary": "Origin"}

        async def shown(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name.lower() == b"access-control-allow-origin" for name, _ in headers):
                    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in added.items()]
                message = {**message, "headers": headers}
            await send(message)

        return shown


class _Unless:
    """Sends an answer on, unless its status is one of these."""

    def __init__(self, statuses: Collection[int], send: Send) -> None:
        self._statuses, self._send = statuses, send
        self.is_withheld = False

    async def __call__(self, message: Any) -> None:
        """Send a message, or swallow it."""
        if message["type"] == "http.response.start":
            self.is_withheld = message["status"] in self._statuses
        if not self.is_withheld:
            await self._send(message)


def _header(scope: Scope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks what it may; one rule holds for all paths."""
    if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
        return False
    return bool(_header(scope, b"origin") and _header(scope, b"access-control-request-method"))


@asynccontextmanager
async def lifespan_of(app: Any) -> AsyncIterator[dict[str, Any]]:
    """The application, started; the state that it made. One that knows no lifespan is served without.

    Raises: BadConfig when it says that it cannot start, or takes too long.
    """
    life = _Life(app)
    try:
        await life.start()
        yield life.state
    finally:
        await life.stop()


class _Life:
    """One run of the lifespan protocol. Source: ASGI specification, Lifespan 2.0."""

    def __init__(self, app: Any) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._asked: asyncio.Queue[dict[str, str]] = asyncio.Queue(maxsize=2)
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=2)
        self._task: asyncio.Task[None] | None = None
        self._is_up = False

    async def start(self) -> None:
        """Let it start. Raises: BadConfig."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.create_task(self._app(scope, self._asked.get, self._said.put))
        try:
            answer = await self._ask("lifespan.startup", CUSTOM_APP_START_S)
        except TimeoutError as error:
            raise BadConfig(f"http.app did not start within {CUSTOM_APP_START_S:.0f} s") from error
        if answer is None:
            log.info("http.app has no lifespan")
        elif answer["type"] == "lifespan.startup.failed":
            raise BadConfig(f"http.app cannot start: {answer.get('message') or 'it does not say why'}")
        else:
            self._is_up = True

    async def stop(self) -> None:
        """Let it stop, for a bounded time."""
        if self._task is None:
            return
        if self._is_up:
            try:
                answer = await self._ask("lifespan.shutdown", CUSTOM_APP_STOP_S)
                if answer is None or answer["type"] == "lifespan.shutdown.failed":
                    log.error("http.app did not stop well: %s", (answer or {}).get("message", "it ended early"))
            except TimeoutError:
                log.warning("http.app did not stop within %.0f s", CUSTOM_APP_STOP_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, what: str, deadline_s: float) -> dict[str, Any] | None:
        """Its answer, None when it ends instead. Raises: TimeoutError."""
        assert self._task is not None
        await self._asked.put({"type": what})
        answer = asyncio.create_task(self._said.get())
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()
