"""The application: routes, errors, and the life of its connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig

from slipstream_api import problems
from slipstream_api.context import Context
from slipstream_api.routes import (
    assistant_graphs,
    assistants,
    crons,
    events,
    metrics,
    runs,
    stateless,
    states,
    store,
    system,
    thread_search,
    thread_stream,
    threads,
)
from slipstream_api.scheduler import scheduling
from slipstream_api.webhooks import delivering
from slipstream_nats.connection import connect
from slipstream_nats.publisher import open_publisher
from slipstream_nats.tail import Tails
from slipstream_postgres import positions
from slipstream_postgres.pool import open_database
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.limits import BODY_BYTES_MAX
from slipstream_schemas.settings import ServiceSettings

ROUTES = [
    *system.ROUTES,
    *metrics.ROUTES,
    *assistants.ROUTES,
    *assistant_graphs.ROUTES,
    *thread_search.ROUTES,
    *threads.ROUTES,
    *thread_stream.ROUTES,
    *states.ROUTES,
    *runs.ROUTES,
    *stateless.ROUTES,
    *crons.ROUTES,
    *store.ROUTES,
    *events.ROUTES,
]
NO_OPENAPI: OpenAPIConfig | None = None
EXPOSED_HEADERS = [
    "location", "content-location", "x-pagination-total", "x-pagination-total-relation", "x-pagination-next"
]  # fmt: skip
"""What the browser SDKs read of an answer; a page of another origin sees no other header of ours."""


@asynccontextmanager
async def opened(settings: ServiceSettings) -> AsyncIterator[Context]:
    """The context of a process. Raises: Unavailable."""
    connection = await connect(settings.nats_url, "slipstream-api")
    publisher = await open_publisher(connection)
    database = await open_database(settings.database_url, size=8)
    async with Tails(connection) as tails:
        context = Context(settings, connection, publisher, tails, database)
        await context.follow_position()
        context.position = await positions.get(database, "control")
        async with scheduling(context), delivering(context):
            yield context
        await asyncio.to_thread(context.tracing.close)
    await database.close()
    await connection.close()


def create_app(context: Context) -> Litestar:
    """The ASGI application on an open context."""
    app = Litestar(
        route_handlers=list(ROUTES),
        openapi_config=NO_OPENAPI,
        logging_config=None,
        request_max_body_size=BODY_BYTES_MAX,
        # Any page may call, without credentials: identity comes in headers, which a foreign page cannot know.
        cors_config=CORSConfig(expose_headers=EXPOSED_HEADERS),
        exception_handlers={
            SlipstreamError: problems.on_slipstream_error,
            HTTPException: problems.on_http_error,
            Exception: problems.on_unexpected,
        },
    )
    app.state.context = context
    return app
