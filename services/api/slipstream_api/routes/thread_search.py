"""Threads: searching and counting."""

import re
from typing import Any

from litestar import Request, Response, post

from slipstream_api import access
from slipstream_api.bodies import read
from slipstream_api.context import Context
from slipstream_api.paging import Page, checked, one_of
from slipstream_api.problems import as_json
from slipstream_postgres import threads
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.limits import (
    EXTRACT_KEYS_MAX,
    EXTRACT_PATHS_MAX,
    PROJECTION_WAIT_S,
    SEARCH_LIMIT_MAX,
    SEARCH_TOTAL_MAX,
)

AnyRequest = Request[Any, Any, Any]
STATUSES = ("idle", "busy", "interrupted", "error")
NOT_KEPT = ("context",)
"""What clients may select and threads do not have."""
KEY = re.compile(r"\.([^.\[\]]+)|\[(-?\d{1,9})\]", re.ASCII)


class ThreadSearch(Page):
    """Body of `POST /threads/search` and `/threads/count`."""

    metadata: dict[str, Any] | None = None
    values: dict[str, Any] | None = None
    status: str | None = None
    ids: list[str] | None = None
    extract: dict[str, str] | None = None


def path_of(text: str, loc: tuple[str, ...]) -> threads.Path:
    """The place that `values.messages[-1].content` names. Raises: InvalidArgument."""
    column = re.split(r"[.\[]", text, maxsplit=1)[0]
    keys = [found[0] or found[1] for found in KEY.findall(text)]
    is_whole = text == column + "".join(found[0] for found in KEY.finditer(text))
    if column not in threads.JSON_COLUMNS or not is_whole or len(keys) > EXTRACT_KEYS_MAX:
        expected = f"Expected a path like values.messages[-1].content, from one of {', '.join(threads.JSON_COLUMNS)}"
        raise InvalidArgument(expected, loc)
    return threads.Path(column, keys)


def query_of(body: ThreadSearch) -> threads.ThreadQuery:
    """The query that a body describes. Raises: InvalidArgument."""
    page = checked(body, threads.SORTABLE, (*threads.COLUMNS, *NOT_KEPT))
    one_of(body.status, STATUSES, "status")
    if len(body.ids or []) > SEARCH_LIMIT_MAX:
        raise InvalidArgument(f"ids has more than {SEARCH_LIMIT_MAX} items", ("body", "ids"))
    if len(body.extract or {}) > EXTRACT_PATHS_MAX:
        raise InvalidArgument(f"extract has more than {EXTRACT_PATHS_MAX} paths", ("body", "extract"))
    selected = tuple(name for name in threads.COLUMNS if not body.select or name in body.select)
    return threads.ThreadQuery(
        body.metadata, body.values, body.status, body.ids,
        page.limit, page.offset, page.sort_by, page.sort_order, selected,
        {alias: path_of(text, ("body", "extract", alias)) for alias, text in (body.extract or {}).items()},
    )  # fmt: skip


async def _permitted(request: AnyRequest) -> tuple[Context, threads.ThreadQuery]:
    """What the caller may search for. Raises: InvalidArgument, Forbidden."""
    context: Context = request.state.context
    body = await read(request, ThreadSearch)
    query = query_of(body)
    asked: dict[str, Any] = {
        "metadata": body.metadata or {}, "values": body.values or {}, "status": body.status, "limit": body.limit,
        "offset": body.offset, "ids": body.ids,
    }  # fmt: skip
    query.allowed = await access.permit(context, "threads", "search", asked)
    query.metadata, query.values = asked.get("metadata"), asked.get("values")
    return context, query


@post("/threads/search", status_code=200)
async def search(request: AnyRequest) -> Response[bytes]:
    """Threads that match, newest first by default."""
    context, query = await _permitted(request)
    await context.projected(context.written, PROJECTION_WAIT_S)
    tenant = context.scope.tenant
    found = await threads.search(context.database, tenant, query)
    is_last_page = len(found) <= query.limit and (found or not query.offset)
    total = query.offset + len(found)
    if not is_last_page or total > SEARCH_TOTAL_MAX:
        total = await threads.count_up_to_max(context.database, tenant, query)
    headers = {"x-pagination-total": str(min(total, SEARCH_TOTAL_MAX))}
    if total > SEARCH_TOTAL_MAX:
        headers["x-pagination-total-relation"] = "gte"
    if len(found) > query.limit:
        headers["x-pagination-next"] = str(query.offset + query.limit)
    return as_json(found[: query.limit], headers=headers)


@post("/threads/count", status_code=200)
async def count(request: AnyRequest) -> Response[bytes]:
    """How many threads match."""
    context, query = await _permitted(request)
    await context.projected(context.written, PROJECTION_WAIT_S)
    return as_json(await threads.count(context.database, context.scope.tenant, query))


ROUTES = [search, count]
