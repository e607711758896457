"""Assistants: read only for now."""

from typing import Any

import msgspec
from litestar import Request, Response, get, post

from slipstream_api.bodies import bounded, read
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_postgres import assistants
from slipstream_schemas.errors import NotFound
from slipstream_schemas.limits import SEARCH_LIMIT_MAX

AnyRequest = Request[Any, Any, Any]


class AssistantSearch(msgspec.Struct):
    """Body of the search."""

    graph_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0


@post("/assistants/search", status_code=200)
async def search(request: AnyRequest) -> Response[bytes]:
    """Assistants, newest first."""
    context: Context = request.app.state.context
    body = await read(request, AssistantSearch)
    limit = bounded(body.limit, 1, SEARCH_LIMIT_MAX, ("body", "limit"))
    offset = bounded(body.offset, 0, 2**31, ("body", "offset"))
    rows = await assistants.search(context.database, graph_id=body.graph_id, name=body.name, metadata=body.metadata,
                                   limit=limit, offset=offset)  # fmt: skip
    more = {"x-pagination-next": str(offset + limit)} if len(rows) > limit else {}
    return as_json(rows[:limit], headers={"x-pagination-total": str(offset + len(rows)), **more})


@get("/assistants/{assistant_id:str}")
async def get_one(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """One assistant, by its id or its graph's."""
    context: Context = request.app.state.context
    row = await context.assistant(assistant_id)
    if row is None:
        raise NotFound(f"Assistant {assistant_id} not found.")
    return as_json(row)


ROUTES = [search, get_one]
