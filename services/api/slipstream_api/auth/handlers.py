"""The user's auth handlers: which one answers for what, and how it is called.

The handlers of a `langgraph_sdk.Auth` are read from the attributes that the SDK keeps for servers; the SDK itself,
which brings LangChain along, is imported by the user's module alone.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from slipstream_api.auth.caller import Caller, caller_of
from slipstream_api.auth.denied import Denied
from slipstream_api.auth.injection import Arriving, Injection, signature_of
from slipstream_schemas.errors import Forbidden, Rejected, SlipstreamError, Unavailable
from slipstream_schemas.limits import AUTH_HANDLER_DEADLINE_S, AUTH_THREADS
from slipstream_schemas.metadata_filter import MetadataFilter, parse_filter

log = logging.getLogger("slipstream.auth")

REFUSED: Final = "Forbidden"
UNAUTHENTICATED: Final = 401
ARGUMENTS: Final = (
    "request", "body", "path", "method", "path_params", "query_params", "headers", "authorization", "scope",
)  # fmt: skip
"""What `authenticate` may ask for, by name."""

Handler = Callable[..., Any]


class Handlers:
    """What one `Auth` object holds. Raises: Rejected when it cannot be used."""

    reads_text = False
    """Whether the handlers list headers as text, as Aegra gives them, and not as bytes."""

    def __init__(self, auth: Any, deadline_s: float = AUTH_HANDLER_DEADLINE_S) -> None:
        try:
            self._specific: dict[tuple[str, str], list[Handler]] = auth._handlers
            self._global: list[Handler] = auth._global_handlers
            authenticate: Handler | None = auth._authenticate_handler
            self._context_type: Callable[..., Any] = auth.types.AuthContext
        except AttributeError as error:
            raise Rejected(f"a {type(auth).__name__} is not a langgraph_sdk.Auth") from error
        if authenticate is None:
            raise Rejected("the Auth object has no @auth.authenticate handler")
        self._authenticate, self._deadline_s = authenticate, deadline_s
        self._injection = Injection(authenticate)
        self.arguments = _arguments(authenticate, self._injection.names)
        self._threads = ThreadPoolExecutor(AUTH_THREADS, "auth")

    @property
    def restricts(self) -> bool:
        """Whether there is any `on` handler: without one, whoever is authenticated may do everything in its tenant."""
        return bool(self._specific or self._global)

    async def authenticate(self, arguments: Mapping[str, object], arriving: Arriving) -> Caller:
        """Who calls. `arguments` are those of `self.arguments`. Raises: Denied (401 or 403), Unavailable."""
        try:
            called = functools.partial(self._invoke, self._authenticate)
            if self._injection.names:
                answer = self._injection.call(called, arguments, arriving)
            else:
                answer = called(dict(arguments))
            return caller_of(await self._in_time(_name(self._authenticate), answer))
        except Unavailable:
            raise
        except Rejected as error:
            log.error("the authenticate handler is refused: %s", error.message)
            raise Denied(403, REFUSED) from error
        except Exception as error:
            refusal = _refusal(error, "authenticate")
            raise Denied(refusal.status if refusal.status == UNAUTHENTICATED else 403, refusal.message,
                         refusal.headers) from error  # fmt: skip

    async def permit(self, caller: Caller, resource: str, action: str, value: dict[str, Any]) -> MetadataFilter | None:
        """What the most specific handler says; it may change `value`. Nobody asked is a yes, as in the reference.

        Raises: Forbidden, Unavailable.
        """
        handler = self.handler_of(resource, action)
        if handler is None:
            return None
        name = f"on.{resource}.{action}"
        asked = self._context_type(
            permissions=list(caller.permissions), user=caller.user, resource=resource, action=action
        )
        try:
            result = await self._call(handler, {"ctx": asked, "value": value})
        except SlipstreamError:
            raise
        except Exception as error:
            raise _refusal(error, name) from error
        if result is None or result is True:
            return None
        if result is False:
            raise Forbidden(REFUSED)
        try:
            return parse_filter(result)
        except Rejected as error:
            log.error("the handler %s returned what is no filter: %s", name, error.message)
            raise Forbidden(REFUSED) from error

    def handler_of(self, resource: str, action: str) -> Handler | None:
        """The most specific handler, of several the last one."""
        for key in ((resource, action), (resource, "*"), ("*", action), ("*", "*")):
            if self._specific.get(key):
                return self._specific[key][-1]
        return self._global[-1] if self._global else None

    async def _call(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        """Call a handler within its deadline. Raises: Unavailable, and what the handler raises."""
        return await self._in_time(_name(handler), self._invoke(handler, arguments))

    async def _invoke(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(handler):
            return await handler(**arguments)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._threads, lambda: handler(**arguments))
        return await result if inspect.isawaitable(result) else result

    async def _in_time(self, name: str, answer: Coroutine[Any, Any, Any]) -> Any:
        """Raises: Unavailable for an answer that does not come, and what it raises."""
        limit = asyncio.timeout(self._deadline_s)
        try:
            async with limit:
                return await answer
        except TimeoutError as error:
            if not limit.expired():
                raise
            log.error("the auth handler %s took longer than %.1f s", name, self._deadline_s)
            raise Unavailable("authorization takes too long; try again") from error


def _arguments(authenticate: Handler, injected: frozenset[str]) -> tuple[str, ...]:
    """The names that the handler asks us for. Raises: Rejected for one that nobody can give."""
    parameters = [each for each in signature_of(authenticate).parameters.values() if each.name not in injected]
    if any(each.kind == each.VAR_KEYWORD for each in parameters):
        return tuple(name for name in ARGUMENTS if name not in ("request", "body"))
    wanted: list[str] = []
    for each in parameters:
        if each.name in ARGUMENTS and each.kind != each.POSITIONAL_ONLY:
            wanted.append(each.name)
        elif each.default is each.empty:
            text = (
                f"{_name(authenticate)} asks for {each.name!r}; it can have: {', '.join(ARGUMENTS)}, FastAPI's Depends"
            )
            raise Rejected(text)
    return tuple(wanted)


def _name(handler: Handler) -> str:
    return str(getattr(handler, "__qualname__", handler))


def _refusal(error: Exception, name: str) -> Denied:
    """What a handler's exception says: one with a status is a refusal, `assert` is one too, all else is a bug."""
    status, detail = getattr(error, "status_code", None), getattr(error, "detail", None)
    if isinstance(status, int) and not isinstance(status, bool):
        headers: Any = getattr(error, "headers", None)
        kept = {str(key): str(value) for key, value in dict(headers).items()} if headers else None
        return Denied(status, str(detail or REFUSED), kept)
    if isinstance(error, AssertionError):
        return Denied(403, str(error) or REFUSED)
    log.error("the auth handler %s failed", name, exc_info=error)
    return Denied(403, REFUSED)
