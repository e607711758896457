"""What a request makes the API ask of NATS and of Postgres, statement by statement.

The API runs in the test's own process. What its background tasks ask is not counted: a request's own work carries the
list that it is written to in a context variable.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import httpx

from slipstream_api.app import opened, serving
from slipstream_api.context import Context
from slipstream_api.http_settings import HttpSettings
from slipstream_schemas.settings import ServiceSettings
from testkit.client import REQUEST_DEADLINE_S
from testkit.stack import Stack

_seen: ContextVar[list[str] | None] = ContextVar("witnessed", default=None)


@contextmanager
def witnessed() -> Iterator[list[str]]:
    """What is asked meanwhile, in order."""
    seen: list[str] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


@asynccontextmanager
async def api_of(stack: Stack) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Another API of a stack, in this process: makes clients, given headers."""
    settings = ServiceSettings(
        nats_url=stack.nats_url, database_url=stack.dsn, region=stack.region, config=str(stack.config)
    )
    async with opened(settings) as context:
        _watch(context)
        async with serving(context, HttpSettings()) as app:
            transport: Any = httpx.ASGITransport(app=app)  # type: ignore[arg-type]

            def client(headers: dict[str, str]) -> httpx.AsyncClient:
                return httpx.AsyncClient(
                    transport=transport, base_url="http://api", headers=headers, timeout=REQUEST_DEADLINE_S
                )

            yield client


def _watch(context: Context) -> None:
    connection: Any = context.connection
    database: Any = context.database
    request, publish, borrowed = connection.request, connection.publish, database.connection

    async def requesting(subject: str, body: bytes, *arguments: Any, **options: Any) -> Any:
        _note(f"request {subject} {body.decode(errors='replace')}")
        return await request(subject, body, *arguments, **options)

    async def publishing(subject: str, payload: bytes = b"", *arguments: Any, **options: Any) -> None:
        _note(f"publish {subject} {payload.decode(errors='replace')}")
        await publish(subject, payload, *arguments, **options)

    @asynccontextmanager
    async def borrowing() -> AsyncIterator[Any]:
        seen = _seen.get()
        async with borrowed() as found:
            with found.query_logger(lambda query: None if seen is None else seen.append(f"sql {query.query}")):
                yield found

    connection.request, connection.publish, database.connection = requesting, publishing, borrowing


def _note(what: str) -> None:
    seen = _seen.get()
    if seen is not None:
        seen.append(what)
