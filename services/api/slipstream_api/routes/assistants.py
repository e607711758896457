"""Assistants and their versions."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post

from slipstream_api import access, configs, erasing
from slipstream_api.bodies import bounded, changed, flag, idempotency_key, read
from slipstream_api.context import Context
from slipstream_api.paging import Page, checked, picked
from slipstream_api.problems import as_json
from slipstream_api.threads import check_metadata
from slipstream_postgres import assistants
from slipstream_postgres.rows import AssistantRow
from slipstream_schemas.errors import Conflict, Forbidden, InvalidArgument, NotFound, Unavailable
from slipstream_schemas.ids import check_assistant_id, derived_id, system_assistant_id, uuid7
from slipstream_schemas.limits import PROJECTION_WAIT_S, SEARCH_LIMIT_MAX, SEARCH_OFFSET_MAX

AnyRequest = Request[Any, Any, Any]
NAME = "Untitled"
VERSION_MAX = 2**31 - 1
DELETE_PAGE = 200
CHANGEABLE = ("config", "context", "metadata")
"""What of a request a handler may change."""
NOT_YOURS = "This assistant belongs to its graph, which all tenants share; only the default one may change it."


class AssistantCreate(msgspec.Struct):
    """Body of `POST /assistants`."""

    graph_id: str
    assistant_id: str | None = None
    config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    if_exists: str | None = None


class AssistantPatch(msgspec.Struct):
    """Body of `PATCH /assistants/{assistant_id}`. What is absent or null stays."""

    graph_id: str | None = None
    config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None


class AssistantSearch(Page):
    """Body of the search and of the count."""

    graph_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None


class VersionSearch(msgspec.Struct):
    """Body of `POST /assistants/{assistant_id}/versions`."""

    metadata: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0


class VersionChoice(msgspec.Struct):
    """Body of `POST /assistants/{assistant_id}/latest`."""

    version: int


async def existing(
    context: Context, assistant_id: str, action: str = "read", said: dict[str, Any] | None = None
) -> AssistantRow:
    """An assistant by its id or its graph's, as it is now, if the caller may do this to it. `said` is what else the
    handler learns, and may change.

    Raises: Forbidden, NotFound, Unavailable.
    """
    value = {} if said is None else said
    value["assistant_id"] = assistant_id
    found = await access.permit(context, "assistants", action, value)
    row = await assistants.get(context.database, context.scope.tenant, assistant_id, found)
    if row is None:
        raise NotFound(f"Assistant {assistant_id} not found.")
    return row


async def check_graph(context: Context, graph_id: str) -> dict[str, str]:
    """All graphs' versions. Raises: InvalidArgument for an unregistered graph, Unavailable before there is any."""
    known = await assistants.graph_versions(context.database)
    if not known:
        raise Unavailable("no runner has registered its graphs yet")
    if graph_id not in known:
        text = f"Graph {graph_id!r} not found. Expected one of: {', '.join(known)}"
        raise InvalidArgument(text, ("body", "graph_id"), "unknown_graph")
    return known


def _content(body: AssistantCreate) -> assistants.Content:
    metadata = check_metadata(body.metadata)
    config, static = configs.mirrored(body.config, body.context)
    encode = msgspec.json.encode
    return assistants.Content(
        body.graph_id, body.name or NAME, body.description, encode(config), encode(static), encode(metadata)
    )


async def _was_created_so(context: Context, assistant_id: str, content: assistants.Content) -> bool:
    """Whether the assistant's first version says the same: then a request may be the repetition of an earlier one."""
    first = await assistants.first_version(context.database, context.scope.tenant, assistant_id)
    decode = msgspec.json.decode
    if first is None:
        return False
    columns = ((first.config, content.config), (first.context, content.context), (first.metadata, content.metadata))
    texts = (content.graph_id, content.name, content.description)
    return (first.graph_id, first.name, first.description) == texts and all(
        decode(known) == decode(wanted) for known, wanted in columns
    )


@post("/assistants", status_code=200)
async def create(request: AnyRequest) -> Response[bytes]:
    """Create an assistant; with `if_exists: do_nothing` an existing one is returned."""
    context: Context = request.state.context
    body = await read(request, AssistantCreate)
    key = idempotency_key(request)
    derived = derived_id("assistant", *context.caller.parts, key) if key else str(uuid7())
    assistant_id = check_assistant_id(body.assistant_id) if body.assistant_id is not None else derived
    if body.if_exists not in (None, "raise", "do_nothing"):
        raise InvalidArgument("Expected one of raise, do_nothing", ("body", "if_exists"), "literal_error")
    asked = {name: getattr(body, name) for name in ("graph_id", *CHANGEABLE, "name", "if_exists")}
    asked |= {"assistant_id": assistant_id, "metadata": body.metadata or {}}
    allowed = await access.permit(context, "assistants", "create", asked)
    body = changed(body, {name: asked.get(name) for name in CHANGEABLE})
    content, tenant = _content(body), context.scope.tenant
    graphs = await check_graph(context, body.graph_id)
    # A graph's id is taken: it names the graph's own assistant.
    row = None if assistant_id in graphs else await assistants.create(context.database, tenant, assistant_id, content)
    if row is None and not (key and await _was_created_so(context, assistant_id, content)):
        if key and body.assistant_id is None:
            text = "this Idempotency-Key was used with another body"
            raise InvalidArgument(text, ("header", "idempotency-key"), "idempotency_key_reused")
        if body.if_exists != "do_nothing":
            raise Conflict(f"Assistant {assistant_id} already exists.")
    row = row or await assistants.get(context.database, tenant, assistant_id, allowed)
    if row is None:
        raise Conflict(f"Assistant {assistant_id} already exists.")
    return as_json(row)


def _query(body: AssistantSearch) -> assistants.AssistantQuery:
    page = checked(body, tuple(assistants.SORTABLE), AssistantRow.__struct_fields__)
    metadata = msgspec.json.encode(body.metadata or {})
    return assistants.AssistantQuery(
        body.graph_id, body.name, metadata, page.limit, page.offset, page.sort_by, page.sort_order
    )


async def _permitted(context: Context, body: AssistantSearch) -> assistants.AssistantQuery:
    """What the caller may search for. Raises: InvalidArgument, Forbidden."""
    query = _query(body)
    asked: dict[str, Any] = {
        "graph_id": body.graph_id, "metadata": body.metadata or {}, "limit": body.limit, "offset": body.offset
    }  # fmt: skip
    found = await access.permit(context, "assistants", "search", asked)
    return msgspec.structs.replace(query, allowed=found, metadata=msgspec.json.encode(asked.get("metadata") or {}))


@post("/assistants/search", status_code=200)
async def search(request: AnyRequest) -> Response[bytes]:
    """Assistants that match, newest first by default."""
    context: Context = request.state.context
    body = await read(request, AssistantSearch)
    query = await _permitted(context, body)
    rows = await assistants.search(context.database, context.scope.tenant, query)
    total = await assistants.count(context.database, context.scope.tenant, query)
    more = {"x-pagination-next": str(query.offset + query.limit)} if len(rows) > query.limit else {}
    headers = {"x-pagination-total": str(total), **more}
    return as_json(picked(rows[: query.limit], body.select), headers=headers)


@post("/assistants/count", status_code=200)
async def count(request: AnyRequest) -> Response[bytes]:
    """How many assistants match."""
    context: Context = request.state.context
    query = await _permitted(context, await read(request, AssistantSearch))
    return as_json(await assistants.count(context.database, context.scope.tenant, query))


@get("/assistants/{assistant_id:str}")
async def get_one(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """One assistant, by its id or its graph's."""
    return as_json(await existing(request.state.context, assistant_id))


def _change(body: AssistantPatch) -> assistants.Change:
    config, encode = configs.checked(body.config, body.context), msgspec.json.encode
    static = body.context
    if static is None and (config or {}).get("configurable") is not None:
        _, static = configs.mirrored(config, None)
    return assistants.Change(
        graph_id=body.graph_id,
        name=body.name,
        description=body.description,
        config=None if config is None else encode(config),
        configurable=None if body.context is None else encode({"configurable": body.context}),
        context=None if static is None else encode(static),
        metadata=encode(check_metadata(body.metadata)),
    )


@patch("/assistants/{assistant_id:str}")
async def patch_one(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """Make a new version. Metadata is merged; what else is given replaces what was."""
    context: Context = request.state.context
    body = await read(request, AssistantPatch)
    _change(body)
    asked: dict[str, Any] = {name: getattr(body, name) for name in ("graph_id", *CHANGEABLE, "name")}
    asked["metadata"] = body.metadata or {}
    known = await existing(context, assistant_id, "update", asked)
    change = _change(changed(body, {name: asked.get(name) for name in CHANGEABLE}))
    if body.graph_id is not None:
        await check_graph(context, body.graph_id)
    row = await assistants.patch(context.database, context.scope.tenant, known.assistant_id, change)
    if row is None:
        raise Forbidden(NOT_YOURS)
    return as_json(row)


@delete("/assistants/{assistant_id:str}", status_code=204)
async def delete_one(request: AnyRequest, assistant_id: str) -> None:
    """Delete an assistant, and with `delete_threads` the threads whose metadata name it. Its runs go on."""
    context: Context = request.state.context
    known = await existing(context, assistant_id, "delete")
    graphs = await assistants.graph_versions(context.database)
    if known.assistant_id in {system_assistant_id(graph_id) for graph_id in graphs}:
        raise Conflict("This assistant belongs to its graph and cannot be deleted.")
    if flag(request, "delete_threads"):
        await _delete_threads(context, known.assistant_id)
    if not await assistants.delete(context.database, context.scope.tenant, known.assistant_id):
        raise NotFound(f"Assistant {assistant_id} not found.")


async def _delete_threads(context: Context, assistant_id: str) -> None:
    """The assistant goes last, so that a request which fails on the way can be repeated."""
    found = await access.permit(context, "threads", "delete", {"assistant_id": assistant_id})
    newest = await context.control.newest_seq(context.settings.region)
    if not await context.projected(newest, PROJECTION_WAIT_S):
        raise Unavailable("the read model lags behind the log; try again")
    after = ""
    tenant = context.scope.tenant
    while page := await assistants.thread_ids(context.database, tenant, assistant_id, after, DELETE_PAGE, found):
        for thread_id in page:
            try:
                await erasing.delete_thread(context, thread_id)
            except NotFound:  # somebody else was faster
                pass
        after = page[-1]


@post("/assistants/{assistant_id:str}/versions", status_code=200)
async def list_versions(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """An assistant's versions, newest first."""
    context: Context = request.state.context
    body = await read(request, VersionSearch)
    limit = bounded(body.limit, 1, SEARCH_LIMIT_MAX, ("body", "limit"))
    offset = bounded(body.offset, 0, SEARCH_OFFSET_MAX, ("body", "offset"))
    known = await existing(context, assistant_id)
    metadata = msgspec.json.encode(body.metadata or {})
    return as_json(
        await assistants.versions(
            context.database, context.scope.tenant, known.assistant_id, metadata=metadata, limit=limit, offset=offset
        )
    )


@post("/assistants/{assistant_id:str}/latest", status_code=200)
async def set_latest(request: AnyRequest, assistant_id: str) -> Response[bytes]:
    """Go back to a version: the assistant is what it was then, its graph included."""
    context: Context = request.state.context
    version = bounded((await read(request, VersionChoice)).version, 1, VERSION_MAX, ("body", "version"))
    known = await existing(context, assistant_id, "update", {"version": version})
    row = await assistants.set_latest(context.database, context.scope.tenant, known.assistant_id, version)
    if row is None:
        raise NotFound(f"Version {version} of assistant {assistant_id} not found.")
    return as_json(row)


ROUTES = [create, search, count, get_one, patch_one, delete_one, list_versions, set_latest]
