"""Threads and their state."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post

from slipstream_api import runs
from slipstream_api.bodies import idempotency_key, read
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_api.thread_rows import row_of
from slipstream_postgres.rows import ThreadRow
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import Conflict, InvalidArgument
from slipstream_schemas.ids import check_thread_id, derived_id, new_run_id, new_thread_id
from slipstream_schemas.limits import CREATE_PROJECTION_WAIT_S, METADATA_KEYS_MAX

AnyRequest = Request[Any, Any, Any]


class ThreadCreate(msgspec.Struct):
    """Body of `POST /threads`."""

    thread_id: str | None = None
    metadata: dict[str, Any] | None = None
    if_exists: str | None = None


class ThreadPatch(msgspec.Struct):
    """Body of `PATCH /threads/{thread_id}`."""

    metadata: dict[str, Any] | None = None


def check_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Bound the metadata. Raises: InvalidArgument."""
    if metadata is not None and len(metadata) > METADATA_KEYS_MAX:
        raise InvalidArgument(f"metadata has more than {METADATA_KEYS_MAX} keys", ("body", "metadata"))
    return metadata or {}


@post("/threads", status_code=200)
async def create(request: AnyRequest) -> Response[bytes]:
    """Create a thread; with `if_exists: do_nothing` an existing one is returned."""
    context: Context = request.app.state.context
    body = await read(request, ThreadCreate)
    key = idempotency_key(request)
    if body.if_exists not in (None, "raise", "do_nothing"):
        raise InvalidArgument("Expected one of raise, do_nothing", ("body", "if_exists"), "literal_error")
    derived = derived_id("thread", context.scope.tenant, key) if key else new_thread_id()
    thread_id = check_thread_id(body.thread_id, ("body", "thread_id")) if body.thread_id is not None else derived
    created, command_id = rs.ThreadCreated(check_metadata(body.metadata)), new_run_id()
    try:
        _, seq = await context.control.decide(
            context.scope,
            thread_id,
            lambda state: rs.create_thread(state, thread_id, command_id, runs.now_ms(), created),
        )
    except Conflict:
        if body.if_exists != "do_nothing" and key is None:
            raise
        return as_json(await row_of(context, thread_id))
    context.written = max(context.written, seq)
    if await context.projected(seq, CREATE_PROJECTION_WAIT_S):
        return as_json(await row_of(context, thread_id))
    # The rows lag; the log is the truth, and says all that there is.
    empty = msgspec.Raw(b"{}")
    moment = _iso(runs.now_ms())
    metadata, null = msgspec.Raw(msgspec.json.encode(created.metadata)), msgspec.Raw(b"null")
    return as_json(ThreadRow(thread_id, moment, moment, moment, metadata, "idle", empty, null, null, empty))


def _iso(at_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


@get("/threads/{thread_id:str}")
async def get_one(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """One thread."""
    return as_json(await row_of(request.app.state.context, check_thread_id(thread_id)))


@patch("/threads/{thread_id:str}")
async def patch_one(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Merge metadata."""
    context: Context = request.app.state.context
    check_thread_id(thread_id)
    patched, command_id = rs.ThreadPatched(check_metadata((await read(request, ThreadPatch)).metadata)), new_run_id()
    _, seq = await context.control.decide(
        context.scope, thread_id, lambda state: rs.patch_thread(state, command_id, runs.now_ms(), patched)
    )
    context.written = max(context.written, seq)
    return as_json(await row_of(context, thread_id))


@delete("/threads/{thread_id:str}", status_code=204)
async def delete_one(request: AnyRequest, thread_id: str) -> None:
    """Delete a thread, its records and its rows."""
    context: Context = request.app.state.context
    await runs.delete_thread(context, check_thread_id(thread_id))
    await context.projected(context.written, CREATE_PROJECTION_WAIT_S)


ROUTES = [create, get_one, patch_one, delete_one]
