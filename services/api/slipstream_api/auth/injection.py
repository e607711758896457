"""What FastAPI gives an `authenticate` handler: parameters of `Depends`, `Security`, `Header`, `Cookie` and the like.

FastAPI is the application's: who writes `Depends` has imported it, and without that nothing is looked for here. Such
parameters are solved together, as those of one of FastAPI's own routes are; the others stay ours. What a dependency
has opened is closed when the handler has answered.

A handshake is a GET request without a body, also for dependencies that ask for a `Request`.
"""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Annotated, Any, Final, get_args, get_origin

from slipstream_schemas.errors import Rejected

HANDSHAKE_METHOD: Final = "GET"
Invoke = Callable[[dict[str, Any]], Awaitable[Any]]
Arriving = tuple[Mapping[str, Any], Callable[..., Any]]
"""The scope of a request or handshake, and what receives its body."""


class Injection:
    """The parameters of one handler that FastAPI gives, by name. Raises: Rejected for what it cannot give here."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self._dependant: Any = None
        self.names: frozenset[str] = frozenset()
        marks: Any = sys.modules.get("fastapi.params")
        if marks is None:
            return
        found = [each for each in signature_of(handler).parameters.values() if _is_marked(each, marks)]
        if not found:
            return

        def collect(**values: Any) -> Any:
            return values

        kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in found]
        collect.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        self.names = frozenset(each.name for each in found)
        utils = import_module("fastapi.dependencies.utils")
        self._solve: Callable[..., Any] = utils.solve_dependencies
        self._dependant = utils.get_dependant(path="/", call=collect)
        if _asks_for_a_body(self._dependant):
            raise Rejected("a dependency asks for a body, a form or a file; a dependency can ask for the `Request`")

    async def call(self, handler: Invoke, arguments: Mapping[str, Any], arriving: Arriving) -> Any:
        """Call the handler with its own arguments and those that FastAPI gives.

        Raises: Rejected when one of the latter is missing or wrong, what the dependencies and the handler raise.
        """
        # A dependency that blocks a thread keeps it, and whoever waits for it; the deadline must hold all the same.
        task = asyncio.create_task(self._call(handler, arguments, arriving))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()
            raise

    async def _call(self, handler: Invoke, arguments: Mapping[str, Any], arriving: Arriving) -> Any:
        request = request_of(*arriving)
        async with AsyncExitStack() as outer, AsyncExitStack() as inner:
            request.scope |= {"fastapi_inner_astack": outer, "fastapi_function_astack": inner}
            solved = await self._solve(
                request=request, dependant=self._dependant, async_exit_stack=inner, embed_body_fields=False
            )
            if solved.errors:
                where = ", ".join(".".join(map(str, each["loc"])) for each in solved.errors)
                raise Rejected(f"what it asks FastAPI for is missing or wrong: {where}")
            return await handler({**arguments, **solved.values})


def signature_of(handler: Callable[..., Any]) -> inspect.Signature:
    """A handler's parameters; annotations that are text are read, if they can be."""
    try:
        return inspect.signature(handler, eval_str=True)
    except (NameError, TypeError, SyntaxError, AttributeError):
        return inspect.signature(handler)


def _is_marked(parameter: inspect.Parameter, marks: Any) -> bool:
    """Whether a parameter is FastAPI's to give, by its annotation or by its default."""
    annotation = parameter.annotation
    marked = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return any(isinstance(each, (marks.Depends, marks.Param, marks.Body)) for each in (*marked, parameter.default))


def _asks_for_a_body(dependant: Any) -> bool:
    return bool(dependant.body_params) or any(_asks_for_a_body(each) for each in dependant.dependencies)


def request_of(scope: Mapping[str, Any], receive: Callable[..., Any]) -> Any:
    """Starlette's request, which shares nothing with ours that a dependency could change."""
    copied: dict[str, Any] = {**scope, "state": dict(scope.get("state") or {})}
    if scope["type"] != "http":
        copied |= {"type": "http", "method": HANDSHAKE_METHOD}
        receive = _nothing
    return import_module("starlette.requests").Request(copied, receive)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}
