"""Threads."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post

from slipstream_api import access, erasing, runs, threads
from slipstream_api.bodies import changed, idempotency_key, read
from slipstream_api.context import Context
from slipstream_api.paging import one_of
from slipstream_api.problems import as_json
from slipstream_api.thread_rows import row_of
from slipstream_postgres import storage, temporary
from slipstream_schemas import run_state as rs
from slipstream_schemas import thread_life
from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.ids import check_thread_id, new_run_id
from slipstream_schemas.limits import CREATE_PROJECTION_WAIT_S, PRUNE_THREADS_MAX
from slipstream_schemas.subjects import thread_key

AnyRequest = Request[Any, Any, Any]


class ThreadPatch(msgspec.Struct):
    """Body of `PATCH /threads/{thread_id}`."""

    metadata: dict[str, Any] | None = None
    ttl: float | threads.Ttl | None = None


class ThreadPrune(msgspec.Struct):
    """Body of `POST /threads/prune`."""

    thread_ids: list[str]
    strategy: str = "delete"


@post("/threads", status_code=200)
async def create(request: AnyRequest) -> Response[bytes]:
    """Create a thread; with `if_exists: do_nothing` an existing one is returned."""
    context: Context = request.state.context
    body = await read(request, threads.ThreadCreate)
    return as_json(await threads.create(context, body, idempotency_key(request)))


@get("/threads/{thread_id:str}")
async def get_one(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """One thread."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    with_ttl = _includes_ttl(request)
    row = await row_of(context, thread_id)
    if not with_ttl:
        return as_json(row)
    ttl = await temporary.ttl_of(context.database, context.scope.tenant, thread_id)
    return as_json({**msgspec.structs.asdict(row), "ttl": ttl})


def _includes_ttl(request: AnyRequest) -> bool:
    """Whether the query asks for the ttl: the SDKs repeat `include`, or join its names. Raises: InvalidArgument."""
    asked = [name for text in request.query_params.getall("include", []) for name in text.split(",") if name]
    for name in asked:
        if name != "ttl":
            raise InvalidArgument("Expected ttl", ("query", "include"), "literal_error")
    return bool(asked)


@patch("/threads/{thread_id:str}")
async def patch_one(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Merge metadata. `Prefer: return=minimal` asks for an answer without a body."""
    context: Context = request.state.context
    check_thread_id(thread_id)
    body = await read(request, ThreadPatch)
    ttl = threads.ttl_of(body.ttl)
    asked: dict[str, Any] = {"metadata": body.metadata or {}}
    await access.thread(context, thread_id, "update", asked)
    metadata = threads.check_metadata(changed(body, {"metadata": asked.get("metadata")}).metadata)
    is_minimal = "return=minimal" in request.headers.get("prefer", "")
    before = None if is_minimal else await row_of(context, thread_id)
    patched, command_id = rs.ThreadPatched(metadata), new_run_id()
    _, seq = await context.control.decide(
        context.scope, thread_id, lambda state: thread_life.patch_thread(state, command_id, runs.now_ms(), patched)
    )
    context.written = max(context.written, seq)
    await threads.limit_life(context, thread_id, ttl)
    if before is None:
        return Response(b"", status_code=204)
    return as_json(await threads.patched_row(context, before, metadata))


@get("/threads/{thread_id:str}/storage")
async def get_storage(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """How many bytes the checkpoints of a thread take."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id))
    await row_of(context, thread_id)
    key = thread_key(context.scope, thread_id)
    return as_json(await storage.of_thread(context.database, thread_id, key))


@delete("/threads/{thread_id:str}", status_code=204)
async def delete_one(request: AnyRequest, thread_id: str) -> None:
    """Delete a thread, its records and its rows."""
    context: Context = request.state.context
    await access.thread(context, check_thread_id(thread_id), "delete")
    await erasing.delete_thread(context, thread_id)
    await context.projected(context.written, CREATE_PROJECTION_WAIT_S)


@post("/threads/{thread_id:str}/copy", status_code=200)
async def copy(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """A new thread with the state and the checkpoints of this one."""
    return as_json(await threads.copy(request.state.context, check_thread_id(thread_id), idempotency_key(request)))


@post("/threads/prune", status_code=200)
async def prune(request: AnyRequest) -> Response[bytes]:
    """Delete threads, or all of their checkpoints but the newest."""
    context: Context = request.state.context
    body = await read(request, ThreadPrune)
    one_of(body.strategy, threads.STRATEGIES, "strategy")
    if len(body.thread_ids) > PRUNE_THREADS_MAX:
        raise InvalidArgument(f"thread_ids has more than {PRUNE_THREADS_MAX} items", ("body", "thread_ids"))
    for number, thread_id in enumerate(body.thread_ids):
        check_thread_id(thread_id, ("body", "thread_ids", number))
    pruned = await threads.prune(context, body.thread_ids, body.strategy)
    await context.projected(context.written, CREATE_PROJECTION_WAIT_S)
    return as_json({"pruned_count": pruned})


ROUTES = [create, get_one, get_storage, patch_one, delete_one, copy, prune]
