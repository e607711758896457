"""Protocol v1: runs without a thread of the client's, and several runs at once."""

from typing import Any, Literal

import msgspec
from litestar import Request, Response, post
from litestar.types import ASGIApp

from slipstream_api import access, runs
from slipstream_api.bodies import idempotency_key, read, read_list
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_api.routes.runs import RUN_STATUSES, places, start, stream_new, wait_new
from slipstream_postgres import runs as run_rows
from slipstream_schemas.errors import Conflict, Corrupt, InvalidArgument, NotFound
from slipstream_schemas.ids import check_run_id, check_thread_id, derived_id, new_thread_id
from slipstream_schemas.limits import BATCH_RUNS_MAX, CANCEL_RUNS_MAX, PROJECTION_WAIT_S

AnyRequest = Request[Any, Any, Any]
NO_RUNS = "No runs found to cancel."


class RunsCancel(msgspec.Struct):
    """Body of `POST /runs/cancel`: runs of a thread by their ids, or all runs of a status."""

    status: Literal["pending", "running", "all"] | None = None
    thread_id: str | None = None
    run_ids: list[str] | None = None


def _own_thread(request: AnyRequest, key: str | None = None) -> str:
    """A new thread; the same one for a request that is repeated with its key. Raises: InvalidArgument."""
    context: Context = request.state.context
    key = key or idempotency_key(request)
    return derived_id("stateless", *context.caller.parts, key) if key else new_thread_id()


@post("/runs", status_code=200)
async def create(request: AnyRequest) -> Response[bytes]:
    """Create a run on a thread of its own and answer at once."""
    context: Context = request.state.context
    _, accepted = await start(request, _own_thread(request), creates_thread=True)
    headers = {"content-location": places(accepted.thread_id, accepted.run_id, "")["content-location"]}
    return as_json(await runs.row_of(context, accepted), headers=headers)


@post("/runs/stream", status_code=200)
async def create_and_stream(request: AnyRequest) -> ASGIApp:
    """Create a run on a thread of its own and stream it."""
    return await stream_new(request, _own_thread(request), creates_thread=True)


@post("/runs/wait", status_code=200)
async def create_and_wait(request: AnyRequest) -> ASGIApp:
    """Create a run on a thread of its own and answer with its final values."""
    return await wait_new(request, _own_thread(request), creates_thread=True)


@post("/runs/batch", status_code=200)
async def create_batch(request: AnyRequest) -> Response[bytes]:
    """Create several runs, each on a thread of its own; if one of them is wrong, none is created."""
    context: Context = request.state.context
    bodies = await read_list(request, runs.RunCreate)
    if not 0 < len(bodies) <= BATCH_RUNS_MAX:
        raise InvalidArgument(f"Expected 1 to {BATCH_RUNS_MAX} runs", ("body",), "out_of_range")
    key = idempotency_key(request)
    keys = [None if key is None else f"{key}:{number}" for number in range(len(bodies))]
    created = [
        await runs.resolve(context, _own_thread(request, each), body, key=each, creates_thread=True)
        for each, body in zip(keys, bodies, strict=True)
    ]
    known = [await runs.repeated(context, run, each) for each, run in zip(keys, created, strict=True)]
    accepted = [
        before or await runs.accept_alone(context, body, run)
        for before, body, run in zip(known, bodies, created, strict=True)
    ]
    return as_json([await runs.row_of(context, each) for each in accepted])


@post("/runs/cancel", status_code=204)
async def cancel(request: AnyRequest) -> None:
    """Stop runs: `{thread_id, run_ids}`, or every run of a `status`. `action` is `interrupt` or `rollback`."""
    context: Context = request.state.context
    body = await read(request, RunsCancel)
    action = runs.cancel_action(request.query_params.get("action"))
    found = await _chosen(context, body, action)
    stopped, failure = 0, None
    for thread_id, run_id in found:
        try:
            await runs.cancel(context, thread_id, run_id, action)
            stopped += 1
        except NotFound:  # it has ended meanwhile
            continue
        except (Conflict, Corrupt) as error:  # this thread's alone
            failure = error
    if failure is not None:
        raise failure
    if not stopped and body.status is None:
        raise NotFound(NO_RUNS)


async def _chosen(context: Context, body: RunsCancel, action: str) -> list[tuple[str, str]]:
    if body.status is not None:
        if body.thread_id is not None or body.run_ids is not None:
            text = "Expected a status, or thread_id and run_ids, not both"
            raise InvalidArgument(text, ("body", "status"))
        asked = {"status": body.status, "action": action}
        allowed = await access.permit(context, "threads", "update", asked)
        await context.projected(context.written, PROJECTION_WAIT_S)
        statuses = RUN_STATUSES[:2] if body.status == "all" else (body.status,)
        return await run_rows.of_status(context.database, context.scope.tenant, statuses, CANCEL_RUNS_MAX, allowed)
    if body.thread_id is None or body.run_ids is None:
        raise InvalidArgument("Expected a status, or thread_id and run_ids", ("body",), "missing")
    thread_id = check_thread_id(body.thread_id, ("body", "thread_id"))
    if len(body.run_ids) > CANCEL_RUNS_MAX:
        raise InvalidArgument(f"Expected at most {CANCEL_RUNS_MAX} runs", ("body", "run_ids"), "out_of_range")
    await _check_thread(context, thread_id, body.run_ids, action)
    return [(thread_id, check_run_id(each, ("body", "run_ids"))) for each in dict.fromkeys(body.run_ids)]


async def _check_thread(context: Context, thread_id: str, run_ids: list[str], action: str) -> None:
    """Raises: Forbidden, NotFound in the words of a run that is not there, Unavailable."""
    try:
        await access.thread(context, thread_id, "update", {"run_ids": run_ids, "action": action})
    except NotFound as error:
        raise NotFound(NO_RUNS) from error


ROUTES = [create, create_and_stream, create_and_wait, create_batch, cancel]
