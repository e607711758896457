"""Health and description of the server."""

from typing import Any

from litestar import MediaType, Request, Response, get

from slipstream_api.auth.middleware import OPEN
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_postgres import assistants
from slipstream_schemas.errors import Unavailable
from slipstream_telemetry.metrics import package_version

AnyRequest = Request[Any, Any, Any]


@get("/info", opt=OPEN)
async def info() -> Response[bytes]:
    """What this server is and can do."""
    flags = {"assistants": True, "crons": True, "langsmith": False, "event_streaming": True}
    return as_json({"version": package_version("slipstream"), "langgraph_py_version": package_version("langgraph"),
                    "flags": flags, "metadata": {"name": "slipstream"}})  # fmt: skip


@get(["/ok", "/health", "/live"], opt=OPEN)
async def ok() -> Response[bytes]:
    """The process answers."""
    return as_json({"ok": True, "status": "healthy"})


@get("/ready", opt=OPEN)
async def ready(request: AnyRequest) -> Response[bytes]:
    """The process can serve: log and rows answer. `graphs` counts what runners have registered. Raises: Unavailable."""
    context: Context = request.state.context
    if not context.connection.is_connected:
        raise Unavailable("NATS is not connected")
    graphs = await assistants.graph_versions(context.database)
    return as_json({"ok": True, "status": "ready", "graphs": len(graphs)})


@get("/openapi.json", opt=OPEN)
async def openapi(request: AnyRequest) -> Response[bytes]:
    """The description of what this server serves."""
    return as_json(request.app.state.document)


@get("/docs", opt=OPEN)
async def docs(request: AnyRequest) -> Response[str]:
    """The same, readable."""
    return Response(request.app.state.page, media_type=MediaType.HTML)


ROUTES = [info, ok, ready, openapi, docs]
