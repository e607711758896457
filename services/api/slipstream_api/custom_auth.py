"""`http.enable_custom_route_auth`: the user's own routes behind the user's own auth handlers.

A request is authenticated before any of those routes is called, whatever its path, sockets included, and refused as
ours are. Routes find the caller where Starlette keeps one: `request.user`, and `request.auth.scopes` for `@requires`.
No `on` handler is asked, since nobody knows what those routes do.

The order is that of `http.middleware_order`, as on our routes: the application's middleware stands in front, unless
that says `auth_first`.
"""

from typing import Any

from litestar.config.cors import CORSConfig
from litestar.types import ASGIApp, Receive, Scope, Send

from slipstream_api.auth.caller import Caller
from slipstream_api.auth.middleware import Replay, caller_of_request
from slipstream_api.auth.refusals import refuse_request, refuse_socket
from slipstream_api.context import Context
from slipstream_api.http_settings import HttpSettings
from slipstream_api.origins import Origins
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.user_code import BadConfig


def guarded(http: HttpSettings, context: Context, cors: CORSConfig) -> Any:
    """The user's application behind the handlers, if it is to be. Raises: BadConfig."""
    app: Any = http.app
    if not (http.config.enable_custom_route_auth and context.handlers is not None):
        return app

    def guard(inner: ASGIApp) -> ASGIApp:
        return Origins(Guard(inner, context), cors)

    middleware = getattr(app, "user_middleware", None)
    if http.config.middleware_order == "auth_first" or not isinstance(middleware, list):
        return guard(app)
    if getattr(app, "middleware_stack", None) is not None:
        text = "http.app has been called before it was served: auth cannot be put in front of its routes"
        raise BadConfig(text)
    # Starlette's innermost middleware is the last one of its list.
    middleware.append((guard, (), {}))
    return app


class Guard:
    """An application whose requests have a user."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a socket of somebody who is known."""
        kind = str(scope["type"])
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        replayed = Replay(receive)
        try:
            caller = await caller_of_request(self._context, scope, replayed)
        except SlipstreamError as error:
            await (refuse_socket if kind == "websocket" else refuse_request)(scope, send, error)
            return
        user: Any = ShownUser(caller)
        scope["user"], scope["auth"] = user, Credentials(caller)
        await self._app(scope, replayed.again(), send)


class Credentials:
    """What a user may do, in the form of Starlette's `AuthCredentials`."""

    def __init__(self, caller: Caller) -> None:
        self.scopes = list(caller.permissions)


class ShownUser:
    """What `authenticate` returned, and what Starlette knows of every user."""

    def __init__(self, caller: Caller) -> None:
        self._user, self._shown = caller.user, caller.shown or {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._user, name, self._shown.get(name))
        if found is None and name not in self._shown:
            raise AttributeError(name)
        return found

    def __getitem__(self, name: str) -> Any:
        """A field of the user's. Raises: KeyError."""
        return self._shown[name]

    def __contains__(self, name: object) -> bool:
        """Whether the user has the field."""
        return name in self._shown
