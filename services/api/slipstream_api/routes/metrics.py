"""The process's figures for Prometheus."""

from typing import Any

from litestar import Request, Response, get

from slipstream_api.auth.middleware import OPEN
from slipstream_api.context import Context
from slipstream_telemetry.exposition import PATH, render


@get(PATH, opt=OPEN)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Counts and times, no ids and no content: whoever may reach the port may read them."""
    context: Context = request.state.context
    await context.metrics.samples.renew(context)
    content_type, body = render(context.metrics.process.registry, request.headers.get("accept", ""))
    return Response(body, media_type=content_type)


ROUTES = [metrics]
