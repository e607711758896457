"""The application: routes, errors, and the life of its connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.types import ASGIApp

from slipstream_api import openapi, problems
from slipstream_api.auth.loading import load_handlers
from slipstream_api.auth.middleware import authenticating
from slipstream_api.context import Context
from slipstream_api.custom_app import Beside, behind_middleware, inner_middleware, lifespan_of
from slipstream_api.custom_auth import guarded
from slipstream_api.http_settings import CorsSettings, HttpSettings
from slipstream_api.inbound import HeaderChoice, Inbound
from slipstream_api.origins import Origins
from slipstream_api.route_groups import enabled, own_paths
from slipstream_api.routes import (
    a2a,
    assistant_graphs,
    assistants,
    crons,
    events,
    mcp,
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
from slipstream_api.unwatched import shared
from slipstream_api.webhooks import delivering
from slipstream_nats.connection import access_of, connect
from slipstream_nats.publisher import open_publisher
from slipstream_nats.tail import Tails
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
    *mcp.ROUTES,
    *a2a.ROUTES,
    *events.ROUTES,
]
NO_OPENAPI: OpenAPIConfig | None = None
EXPOSED_HEADERS = [
    "location", "content-location", "x-pagination-total", "x-pagination-total-relation", "x-pagination-next"
]  # fmt: skip
"""What the browser SDKs read of an answer; a page of another origin sees no other header of ours."""


@asynccontextmanager
async def opened(settings: ServiceSettings) -> AsyncIterator[Context]:
    """The context of a process. Raises: Unavailable, BadConfig."""
    handlers = load_handlers(Path(settings.config))
    connection = await connect(access_of(settings, "api"), "slipstream-api")
    publisher = await open_publisher(connection)
    database = await open_database(settings.database_url, size=8)
    async with Tails(connection) as tails:
        context = Context(settings, connection, publisher, tails, database, handlers)
        await context.follow_position()
        telling = shared(context.unwatched, connection, settings.region)
        async with telling, scheduling(context), delivering(context):
            yield context
        await asyncio.to_thread(context.tracing.close)
    await database.close()
    await connection.close()


def create_app(context: Context, http: HttpSettings) -> Litestar:
    """Our own ASGI application on an open context. Raises: BadConfig."""
    document = openapi.without(http.disabled)
    return Litestar(
        route_handlers=enabled(ROUTES, http.disabled),
        state=State({"document": document, "page": openapi.page(document)}),
        openapi_config=NO_OPENAPI,
        logging_config=None,
        # Auth stands before the user's middleware; `auth_first` is so by this order.
        middleware=[authenticating(context), *inner_middleware(http)],
        request_max_body_size=BODY_BYTES_MAX,
        cors_config=cors_of(http),
        exception_handlers={
            SlipstreamError: problems.on_slipstream_error,
            HTTPException: problems.on_http_error,
            Exception: problems.on_unexpected,
        },
    )


def cors_of(http: HttpSettings) -> CORSConfig:
    """Which pages may call. By default any, without credentials: identity comes in headers, which a foreign page cannot
    know.
    """
    chosen = http.config.cors or CorsSettings()
    methods: list[Any] = list(chosen.allow_methods)
    return CORSConfig(
        allow_origins=list(chosen.allow_origins),
        allow_methods=methods,
        allow_headers=list(chosen.allow_headers),
        allow_credentials=bool(chosen.allow_credentials),
        allow_origin_regex=chosen.allow_origin_regex,
        expose_headers=[*EXPOSED_HEADERS, *chosen.expose_headers],
        max_age=chosen.max_age,
    )


@asynccontextmanager
async def serving(context: Context, http: HttpSettings) -> AsyncIterator[ASGIApp]:
    """All that a process serves: our application and the user's, which is started. Raises: BadConfig."""
    app: ASGIApp = create_app(context, http)
    if http.config.configurable_headers is not None:
        app = Inbound(app, HeaderChoice(http.config.configurable_headers))
    cors = cors_of(http)
    app = Origins(app, cors)
    if http.app is None:
        yield app
        return
    app = behind_middleware(app, http)
    own, theirs = own_paths(enabled(ROUTES, http.disabled)), guarded(http, context, cors)
    is_guarded = http.config.enable_custom_route_auth and context.handlers is not None
    async with lifespan_of(http.app) as state:
        yield Beside(app, theirs, own, cors, state, is_guarded=is_guarded)
