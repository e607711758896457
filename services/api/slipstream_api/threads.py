"""Threads as requests describe them: made, made with a state, copied, thinned out."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from slipstream_api import access, erasing, runs, states
from slipstream_api.bodies import changed
from slipstream_api.context import Context
from slipstream_api.thread_rows import graph_of, row_of
from slipstream_postgres import temporary
from slipstream_postgres.rows import NULL, ThreadRow
from slipstream_schemas import run_state as rs
from slipstream_schemas import thread_life
from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import Conflict, InvalidArgument, NotFound, Rejected, SlipstreamError, Unavailable
from slipstream_schemas.ids import check_thread_id, derived_id, new_run_id, new_thread_id
from slipstream_schemas.limits import CREATE_PROJECTION_WAIT_S, METADATA_KEYS_MAX, TTL_MINUTES_MAX

STRATEGIES = ("delete", "keep_latest")
"""What pruning takes: the thread, or all of its checkpoints but the newest."""
NO_GRAPH = "supersteps need a graph: name it in metadata.graph_id"


class Superstep(msgspec.Struct):
    """Updates that are applied together."""

    updates: list[states.Update]


class Ttl(msgspec.Struct):
    """How long a thread shall stay when nothing changes it, in minutes."""

    ttl: float
    strategy: str = "delete"

    @property
    def keeps_latest(self) -> bool:
        """Whether the thread stays, and its newest checkpoint."""
        return self.strategy == "keep_latest"


class ThreadCreate(msgspec.Struct):
    """Body of `POST /threads`."""

    thread_id: str | None = None
    metadata: dict[str, Any] | None = None
    if_exists: str | None = None
    supersteps: list[Superstep] | None = None
    ttl: float | Ttl | None = None


def check_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Bound the metadata. Raises: InvalidArgument."""
    if metadata is not None and len(metadata) > METADATA_KEYS_MAX:
        raise InvalidArgument(f"metadata has more than {METADATA_KEYS_MAX} keys", ("body", "metadata"))
    return metadata or {}


def ttl_of(given: float | Ttl | None) -> Ttl | None:
    """How long a thread shall stay. Raises: InvalidArgument."""
    ttl = given if given is None or isinstance(given, Ttl) else Ttl(given)
    if ttl is not None and not 0 < ttl.ttl <= TTL_MINUTES_MAX:
        raise InvalidArgument(f"Expected 0 to {TTL_MINUTES_MAX} minutes", ("body", "ttl"), "out_of_range")
    if ttl is not None and ttl.strategy not in STRATEGIES:
        text = f"Expected one of {', '.join(STRATEGIES)}"
        raise InvalidArgument(text, ("body", "ttl", "strategy"), "literal_error")
    return ttl


async def limit_life(context: Context, thread_id: str, ttl: Ttl | None) -> None:
    """Let the thread, or its older checkpoints, go when nothing has changed it for so long. Raises: Unavailable."""
    if ttl is not None:
        tenant = context.scope.tenant
        await temporary.limit_life(context.database, tenant, thread_id, ttl.ttl, keeps_latest=ttl.keeps_latest)


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


async def create(context: Context, body: ThreadCreate, key: str | None = None) -> ThreadRow:
    """Make a thread, and the state that its supersteps lead to; without that state there is no thread either.

    `key` is the request's `Idempotency-Key`: the same request again finds the thread that the first one made.
    Raises: InvalidArgument, Conflict, and what `states.update_state` does.
    """
    _checked(body)
    ttl = ttl_of(body.ttl)
    derived = derived_id("thread", *context.caller.parts, key) if key else new_thread_id()
    thread_id = body.thread_id or derived
    request = f"{_digest(key)}:{_digest(body)}" if key else ""
    asked = {"thread_id": thread_id, "metadata": body.metadata or {}, "if_exists": body.if_exists or "raise"}
    allowed = await access.permit(context, "threads", "create", asked)
    metadata, steps = _checked(changed(body, {"metadata": asked.get("metadata")}))
    if steps:
        await states.check_runner(context, metadata["graph_id"])
    if key and thread_id != derived and (await _known_request(context, derived)).startswith(_digest(key)):
        raise _reused()
    try:
        seq = await _append(context, thread_id, rs.ThreadCreated(metadata, request))
    except Conflict:
        if allowed is not None and not await access.matches(context, thread_id, allowed):
            raise
        known = await _known_request(context, thread_id)
        if key and known == request:
            return await _repeated(context, thread_id, steps, ttl)
        if key and known.startswith(_digest(key)):
            raise _reused() from None
        if body.if_exists != "do_nothing":
            raise
        return await row_of(context, thread_id)
    await limit_life(context, thread_id, ttl)
    if steps:
        await _fill(context, thread_id, states.update_state(context, thread_id, steps))
        return await row_of(context, thread_id)
    if await context.projected(seq, CREATE_PROJECTION_WAIT_S):
        try:
            return await row_of(context, thread_id)
        except (NotFound, Unavailable):
            pass  # It was made, and is gone already or has gone on.
    # The rows lag; the log is the truth, and says all that there is.
    moment, empty = datetime.now(UTC).isoformat(), msgspec.Raw(b"{}")
    shown = msgspec.Raw(msgspec.json.encode(metadata))
    return ThreadRow(thread_id, moment, moment, moment, shown, "idle", empty, NULL, NULL, empty)


async def patched_row(context: Context, before: ThreadRow, metadata: dict[str, Any]) -> ThreadRow:
    """The row of a thread whose metadata was changed. It is changed, whatever has become of its row, or of Postgres.

    Raises: NotFound when the thread has gone since.
    """
    try:
        return await row_of(context, before.thread_id)
    except Unavailable:
        merged = {**msgspec.json.decode(before.metadata), **metadata}
        return msgspec.structs.replace(before, metadata=msgspec.Raw(dumps(merged)))


def _checked(body: ThreadCreate) -> tuple[dict[str, Any], list[list[states.Update]]]:
    """The metadata and the supersteps. Raises: InvalidArgument."""
    if body.if_exists not in (None, "raise", "do_nothing"):
        raise InvalidArgument("Expected one of raise, do_nothing", ("body", "if_exists"), "literal_error")
    if body.thread_id is not None:
        check_thread_id(body.thread_id, ("body", "thread_id"))
    metadata = check_metadata(body.metadata)
    steps = [step.updates for step in body.supersteps or []]
    if steps:
        states.check_supersteps(steps)
        if not isinstance(metadata.get("graph_id"), str):
            raise InvalidArgument(NO_GRAPH, ("body", "metadata", "graph_id"), "missing")
    return metadata, steps


def _reused() -> InvalidArgument:
    text = "this Idempotency-Key was used with another body"
    return InvalidArgument(text, ("header", "idempotency-key"), "idempotency_key_reused")


async def _append(context: Context, thread_id: str, created: rs.ThreadCreated) -> int:
    command_id = new_run_id()
    _, seq = await context.control.decide(
        context.scope,
        thread_id,
        lambda state: thread_life.create_thread(state, thread_id, command_id, runs.now_ms(), created),
    )
    context.written = max(context.written, seq)
    return seq


async def _known_request(context: Context, thread_id: str) -> str:
    """What the request that made the thread was, empty when it had no key."""
    first = await context.control.creation(context.scope, thread_id)
    if first is None or first.name != "thread_created":
        return ""
    return msgspec.json.decode(first.payload, type=rs.ThreadCreated).request


async def _repeated(context: Context, thread_id: str, steps: list[list[states.Update]], ttl: Ttl | None) -> ThreadRow:
    """The thread of a request that comes again, whose first time may have been cut off half way."""
    if ttl is not None and await temporary.ttl_of(context.database, context.scope.tenant, thread_id) is None:
        await limit_life(context, thread_id, ttl)
    if steps:
        await _fill_again(context, thread_id, lambda: states.update_state(context, thread_id, steps))
    return await row_of(context, thread_id)


async def _fill_again(context: Context, thread_id: str, filling: Callable[[], Awaitable[object]]) -> None:
    """Give a thread its state, unless it has had one since it was made. Raises: what `filling` does."""
    if rs.existing((await context.control.head(context.scope, thread_id)).state).fence:
        return
    try:
        await filling()
    except Conflict:
        # The first time goes on, on another instance, and was first here as well; or else nobody has filled it yet.
        if not rs.existing((await context.control.head(context.scope, thread_id)).state).fence:
            raise


async def _fill(context: Context, thread_id: str, filling: Awaitable[object]) -> None:
    """Await what gives a new thread its state; when that fails the thread goes, unless somebody has used it."""
    try:
        await filling
    except SlipstreamError:

        def decide(state: rs.ThreadState | None) -> None:
            known = rs.existing(state)
            if rs.is_busy(known) or known.fence:
                raise Conflict("The thread is in use.")

        try:
            await erasing.delete_thread(context, thread_id, check=decide)
        except (Conflict, NotFound):
            pass
        raise


async def copy(context: Context, thread_id: str, key: str | None = None) -> ThreadRow:
    """A new thread with the metadata, the checkpoints and the state of another, and without its runs and events.

    `key` is the request's `Idempotency-Key`: the same request again finds the copy that the first one made.
    Raises: NotFound, InvalidArgument, Unavailable.
    """
    await access.thread(context, thread_id)
    row = await row_of(context, thread_id)
    new_id = derived_id("copy", *context.caller.parts, key) if key else new_thread_id()
    request = f"{_digest(key)}:{_digest(thread_id)}" if key else ""
    asked: dict[str, Any] = {"thread_id": new_id, "metadata": msgspec.json.decode(row.metadata)}
    await access.permit(context, "threads", "create", asked)
    metadata = check_metadata(changed(ThreadCreate(), {"metadata": asked.get("metadata")}).metadata)
    try:
        await _append(context, new_id, rs.ThreadCreated(metadata, request))
    except Conflict:
        if await _known_request(context, new_id) != request:
            raise _reused() from None
        if graph_of(row) is not None:
            await _fill_again(context, new_id, lambda: states.copy_state(context, thread_id, new_id))
        return await row_of(context, new_id)
    if graph_of(row) is not None:
        await _fill(context, new_id, states.copy_state(context, thread_id, new_id))
    return await row_of(context, new_id)


async def prune(context: Context, thread_ids: list[str], strategy: str) -> int:
    """Delete threads, or (`keep_latest`) all of their checkpoints but the newest; returns how many it did.

    Threads that do not exist are left out, and those that run or wait keep their checkpoints: a rollback may need them.
    Raises: Unavailable.
    """
    done = 0
    asked = {"thread_ids": thread_ids, "strategy": strategy}
    found = await access.permit(context, "threads", "delete" if strategy == "delete" else "update", asked)
    for thread_id in dict.fromkeys(thread_ids):
        try:
            await access.check_thread(context, thread_id, found)
            if strategy == "delete":
                await erasing.delete_thread(context, thread_id)
                done += 1
            else:
                done += await states.keep_latest(context, thread_id)
        except (NotFound, Rejected):
            continue
    return done
