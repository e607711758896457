"""Crons: runs on a schedule."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post

from slipstream_api import access, crons, runs
from slipstream_api.bodies import convert, idempotency_key, read
from slipstream_api.context import Context
from slipstream_api.paging import Page, checked, picked
from slipstream_api.problems import as_json
from slipstream_postgres import crons as rows
from slipstream_postgres.crons import SORTABLE, CronQuery, CronRow
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import Conflict, InvalidArgument, NotFound
from slipstream_schemas.ids import check_run_id, check_thread_id, derived_id, new_run_id, new_thread_id
from slipstream_schemas.limits import CRONS_MAX, DECIDE_TRIES_MAX, METADATA_KEYS_MAX

AnyRequest = Request[Any, Any, Any]
Maybe = msgspec.UnsetType | str | None
COMPLETIONS = ("delete", "keep")
FIELDS = (*CronRow.__struct_fields__, "now")
"""What clients may select; `now` is none of a cron's, and left out."""


class CronCreate(msgspec.Struct):
    """What a request says of the cron itself; the rest of it is the run's."""

    schedule: str
    assistant_id: str
    timezone: str | None = None
    end_time: str | None = None
    enabled: bool | None = None
    on_run_completed: str | None = None
    metadata: dict[str, Any] | None = None


class CronPatch(msgspec.Struct):
    """As above; what is left out stays. `end_time` and `timezone` may be taken away by null."""

    schedule: str | None = None
    timezone: Maybe = msgspec.UNSET
    end_time: Maybe = msgspec.UNSET
    enabled: bool | None = None
    on_run_completed: str | None = None
    metadata: dict[str, Any] | None = None


class CronSearch(Page):
    """Body of the search and of the count."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: dict[str, Any] | None = None


def _end(text: str | None) -> str | None:
    """The moment, as one of UTC if it names no zone. Raises: InvalidArgument."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("Expected an ISO 8601 time", ("body", "end_time"), "datetime_parsing") from error


def _completion(value: str | None, thread_id: str | None) -> str | None:
    """What happens to the thread of a run; a thread of the client's own stays. Raises: InvalidArgument."""
    if value is not None and value not in COMPLETIONS:
        raise InvalidArgument("Expected one of delete, keep", ("body", "on_run_completed"), "literal_error")
    return None if thread_id is not None else value or "delete"


def _metadata(value: dict[str, Any] | None) -> dict[str, Any]:
    if value is not None and len(value) > METADATA_KEYS_MAX:
        raise InvalidArgument(f"metadata has more than {METADATA_KEYS_MAX} keys", ("body", "metadata"))
    return value or {}


async def _create(request: AnyRequest, thread_id: str | None) -> Response[bytes]:
    context: Context = request.state.context
    plain = await read(request, dict[str, Any])
    body, payload = convert(plain, CronCreate), crons.payload_of(convert(plain, runs.RunCreate))
    key = idempotency_key(request)
    cron_id = derived_id("cron", *context.caller.parts, key) if key else new_run_id()
    asked: dict[str, Any] = {
        "cron_id": cron_id, "thread_id": thread_id, "schedule": body.schedule, "payload": payload,
        "end_time": body.end_time, "user_id": context.caller.identity or None, "metadata": body.metadata or {},
    }  # fmt: skip
    await access.permit(context, "crons", "create", asked)
    # What a tick would refuse is refused now.
    run = convert(plain, runs.RunCreate)
    resolved = await runs.resolve(context, thread_id or new_thread_id(), run, creates_thread=thread_id is None)
    if thread_id is not None:
        rs.existing((await context.control.head(context.scope, thread_id)).state)
    if await rows.count(context.database, context.scope.tenant, CronQuery()) >= CRONS_MAX:
        raise Conflict(f"There are {CRONS_MAX} crons already.")
    now, metadata = crons.shown(runs.now_ms()), _metadata(asked.get("metadata"))
    enabled = body.enabled is not False
    row = CronRow(
        cron_id, resolved.assistant_id, thread_id, _completion(body.on_run_completed, thread_id),
        _end(body.end_time), body.schedule, body.timezone, now, now, msgspec.Raw(msgspec.json.encode(payload)),
        context.caller.identity or None, None, msgspec.Raw(msgspec.json.encode(metadata)), enabled,
    )  # fmt: skip
    if key and (known := await rows.get(context.database, context.scope.tenant, cron_id)) is not None:
        return as_json(_repeated(known, row))
    if crons.following(row, runs.now_ms()) is None and enabled and row.end_time is None:
        raise InvalidArgument("The schedule never ticks", ("body", "schedule"))
    if (added := await crons.add(context, row)) is None:
        # The same request was first, a moment ago or on another instance.
        known = await rows.get(context.database, context.scope.tenant, cron_id)
        if known is None:
            raise NotFound("Cron not found.")
        return as_json(_repeated(known, row))
    return as_json(added)


def _repeated(known: CronRow, row: CronRow) -> CronRow:
    """The cron that this `Idempotency-Key` has made before. Raises: InvalidArgument when it made another one."""
    decode = msgspec.json.decode
    same = (known.thread_id, known.schedule, known.timezone) == (row.thread_id, row.schedule, row.timezone)
    if not same or decode(known.payload) != decode(row.payload) or decode(known.metadata) != decode(row.metadata):
        text = "this Idempotency-Key was used with another body"
        raise InvalidArgument(text, ("header", "idempotency-key"), "idempotency_key_reused")
    return known


@post("/runs/crons", status_code=200)
async def create(request: AnyRequest) -> Response[bytes]:
    """Create a cron whose runs have threads of their own."""
    return await _create(request, None)


@post("/threads/{thread_id:str}/runs/crons", status_code=200)
async def create_for_thread(request: AnyRequest, thread_id: str) -> Response[bytes]:
    """Create a cron whose runs share a thread."""
    return await _create(request, check_thread_id(thread_id))


async def _row(context: Context, cron_id: str, action: str, said: dict[str, Any] | None = None) -> CronRow:
    """A cron, if the caller may do this to it. Raises: Forbidden, NotFound."""
    check_run_id(cron_id, ("path", "cron_id"))
    value = {} if said is None else said
    value["cron_id"] = cron_id
    found = await access.permit(context, "crons", action, value)
    row = await rows.get(context.database, context.scope.tenant, cron_id, found)
    if row is None:
        raise NotFound("Cron not found.")
    return row


@get("/runs/crons/{cron_id:str}")
async def get_one(request: AnyRequest, cron_id: str) -> Response[bytes]:
    """One cron."""
    return as_json(await _row(request.state.context, cron_id, "read"))


@patch("/runs/crons/{cron_id:str}")
async def update(request: AnyRequest, cron_id: str) -> Response[bytes]:
    """Change a cron: its own fields, and those of its runs."""
    context: Context = request.state.context
    plain = await read(request, dict[str, Any])
    for _ in range(DECIDE_TRIES_MAX):
        if (changed := await crons.change(context, await _changed(context, cron_id, plain))) is not None:
            return as_json(changed)
    raise Conflict(f"cron {cron_id} changed {DECIDE_TRIES_MAX} times meanwhile")


async def _changed(context: Context, cron_id: str, plain: dict[str, Any]) -> CronRow:
    """What a request makes of a cron as it is now. Raises: NotFound, InvalidArgument, Forbidden, Unavailable."""
    body = convert(plain, CronPatch)
    asked: dict[str, Any] = {"payload": plain, "schedule": body.schedule, "metadata": body.metadata or {}}
    row = await _row(context, cron_id, "update", asked)
    body.metadata = _metadata(asked.get("metadata")) or body.metadata
    given = {name: value for name, value in plain.items() if value is not None and name != "assistant_id"}
    if body.metadata is not None:
        given["metadata"] = _metadata({**msgspec.json.decode(row.metadata), **body.metadata})
        row.metadata = msgspec.Raw(msgspec.json.encode(given["metadata"]))
    run = convert({**msgspec.json.decode(row.payload), **given}, runs.RunCreate)
    await runs.resolve(context, row.thread_id or new_thread_id(), run, creates_thread=row.thread_id is None)
    row.payload = msgspec.Raw(msgspec.json.encode(crons.payload_of(run)))
    row.schedule = row.schedule if body.schedule is None else body.schedule
    row.timezone = row.timezone if body.timezone is msgspec.UNSET else body.timezone
    row.end_time = row.end_time if body.end_time is msgspec.UNSET else _end(body.end_time)
    row.enabled = row.enabled if body.enabled is None else body.enabled
    row.on_run_completed = _completion(body.on_run_completed or row.on_run_completed, row.thread_id)
    return row


@delete("/runs/crons/{cron_id:str}", status_code=204)
async def remove(request: AnyRequest, cron_id: str) -> None:
    """Delete a cron. Its runs stay."""
    context: Context = request.state.context
    row = await _row(context, cron_id, "delete")
    if not await crons.forget(context, row.cron_id):
        raise NotFound("Cron not found.")


def _query(body: CronSearch) -> CronQuery:
    page = checked(body, SORTABLE, FIELDS)
    return CronQuery(
        body.assistant_id, body.thread_id, body.enabled, body.metadata or {}, page.sort_by, page.sort_order,
        page.limit, page.offset,
    )  # fmt: skip


async def _permitted(context: Context, body: CronSearch) -> CronQuery:
    """What the caller may search for. Raises: InvalidArgument, Forbidden."""
    query = _query(body)
    asked: dict[str, Any] = {
        "assistant_id": body.assistant_id, "thread_id": body.thread_id, "metadata": body.metadata or {},
        "limit": body.limit, "offset": body.offset,
    }  # fmt: skip
    query.allowed = await access.permit(context, "crons", "search", asked)
    query.metadata = asked.get("metadata") or {}
    return query


@post("/runs/crons/search", status_code=200)
async def search(request: AnyRequest) -> Response[bytes]:
    """Crons, newest first."""
    context: Context = request.state.context
    body = await read(request, CronSearch)
    query = await _permitted(context, body)
    found = await rows.search(context.database, context.scope.tenant, query)
    more = {"x-pagination-next": str(query.offset + query.limit)} if len(found) > query.limit else {}
    total = await rows.count(context.database, context.scope.tenant, query)
    headers = {"x-pagination-total": str(total), **more}
    return as_json(picked(found[: query.limit], body.select), headers=headers)


@post("/runs/crons/count", status_code=200)
async def count(request: AnyRequest) -> Response[bytes]:
    """How many crons match."""
    context: Context = request.state.context
    query = await _permitted(context, await read(request, CronSearch))
    return as_json(await rows.count(context.database, context.scope.tenant, query))


ROUTES = [create, create_for_thread, get_one, update, remove, search, count]
