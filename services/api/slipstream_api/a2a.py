"""The Agent2Agent protocol: each assistant is an agent, a context is a thread, and a task is a run.

Theory of operation. A message starts a run on its context's thread, which is made for a message without one. Where the
thread waits for an answer, the message is the answer: that is a new run, hence a new task of the same context. What a
task came to is read from the log, whenever and on whichever instance it is asked for: a stream can be taken up again.
Source: the specification of A2A 0.3.
"""

from typing import Any, Final

import msgspec

from slipstream_api import access, runs
from slipstream_api.context import Context
from slipstream_api.drawings import ask
from slipstream_api.jsonrpc import INVALID_PARAMS, Failed
from slipstream_postgres import runs as run_rows
from slipstream_postgres.rows import AssistantRow, RunPlace
from slipstream_schemas.drawings import SchemasQuestion
from slipstream_schemas.errors import InvalidArgument, NoSuchGraph, NotFound, Unavailable
from slipstream_schemas.ids import check_run_id, check_thread_id, new_thread_id
from slipstream_schemas.limits import PROJECTION_WAIT_S
from slipstream_telemetry.metrics import package_version

PROTOCOL: Final = "0.3.0"
NO_TASK: Final = -32001
NOT_CANCELABLE: Final = -32002
NO_PUSH: Final = -32003
NO_SUCH_CONTENT: Final = -32005
MODES: Final = ["text/plain", "application/json"]


class Part(msgspec.Struct):
    """A piece of a message: `text` or `data`; files are refused."""

    kind: str
    text: str | None = None
    data: dict[str, Any] | None = None


class Message(msgspec.Struct, rename="camel"):
    """What somebody says to an agent."""

    parts: list[Part]
    context_id: str | None = None


class Configuration(msgspec.Struct, rename="camel"):
    """How the answer is wanted."""

    blocking: bool | None = None
    push_notification_config: dict[str, Any] | None = None


class SendParams(msgspec.Struct):
    """Parameters of `message/send` and `message/stream`."""

    message: Message
    configuration: Configuration | None = None
    metadata: dict[str, Any] | None = None


class TaskParams(msgspec.Struct):
    """Parameters of the calls that name a task."""

    id: str


async def agent(context: Context, assistant_id: str) -> AssistantRow:
    """The assistant behind an agent. Raises: Forbidden, NotFound, Unavailable."""
    try:
        return await runs.assistant_of(context, assistant_id)
    except (NoSuchGraph, NotFound) as error:
        raise NotFound(f"Assistant {assistant_id} not found.") from error


def card(row: AssistantRow, base_url: str) -> dict[str, Any]:
    """What an agent says of itself."""
    about = row.description or f"The assistant {row.name}"
    skill = {"id": row.assistant_id, "name": row.name, "description": about, "tags": ["assistant", row.graph_id]}
    return {
        "protocolVersion": PROTOCOL,
        "name": row.name,
        "description": about,
        "url": f"{base_url.rstrip('/')}/a2a/{row.assistant_id}",
        "preferredTransport": "JSONRPC",
        "version": package_version("slipstream"),
        "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": False},
        "defaultInputModes": MODES,
        "defaultOutputModes": MODES,
        "skills": [skill],
    }


async def send(context: Context, row: AssistantRow, params: SendParams) -> runs.Accepted:
    """Start the run of a message. Raises: Rejected, Conflict, Forbidden, Unavailable."""
    if params.configuration is not None and params.configuration.push_notification_config is not None:
        raise Failed(NO_PUSH, "Push notifications are not supported; give the run a webhook over the API of runs")
    said, text = _content(params.message.parts)
    context_id = params.message.context_id
    thread_id = new_thread_id() if context_id is None else check_thread_id(context_id, ("message", "contextId"))
    body = runs.RunCreate(row.assistant_id, metadata=params.metadata)
    waits = context_id is not None and await _waits(context, thread_id)
    if waits:
        body.command = {"resume": said or text}
    else:
        body.input = {**said, **(await _messages(context, row, text) if text else {})}
    created = await runs.resolve(context, thread_id, body, creates_thread=not waits)
    return await runs.accept(context, created)


def _content(parts: list[Part]) -> tuple[dict[str, Any], str]:
    """The data and the text of a message. Raises: Failed."""
    said: dict[str, Any] = {}
    for part in parts:
        if part.kind not in ("text", "data"):
            raise Failed(NO_SUCH_CONTENT, f"Parts of kind {part.kind[:80]!r} are not supported: text and data are")
        said.update(part.data or {})
    text = "\n".join(part.text for part in parts if part.text)
    if not said and not text:
        raise Failed(INVALID_PARAMS, "The message is empty")
    return said, text


async def _messages(context: Context, row: AssistantRow, text: str) -> dict[str, Any]:
    """The text as the graph's input. Raises: Failed for a graph that takes no messages, Unavailable."""
    question = SchemasQuestion(row.graph_id, msgspec.json.decode(row.config))
    schema = msgspec.json.decode(await ask(context, question)).get("input_schema") or {}
    if "messages" not in schema.get("properties", ()):
        raise Failed(INVALID_PARAMS, "The agent's input has no `messages`: send a data part with its input")
    return {"messages": [{"role": "user", "content": text}]}


async def _waits(context: Context, thread_id: str) -> bool:
    """Whether a thread of the caller's waits for an answer. Raises: Forbidden, Unavailable."""
    try:
        await access.thread(context, thread_id)
    except NotFound:
        return False
    state = (await context.control.head(context.scope, thread_id)).state
    return state is not None and not state.deleted and bool(state.interrupts) and state.running is None


async def place_of(context: Context, row: AssistantRow, task_id: str, action: str = "read") -> RunPlace:
    """Where a task of this agent lies. Raises: Failed for one that is not there for the caller, Unavailable."""
    try:
        check_run_id(task_id)
        newest = await context.control.newest_seq(context.settings.region)
        if not await context.projected(newest, PROJECTION_WAIT_S):
            raise Unavailable("the read model lags behind the log; try again")
        tenant = context.scope.tenant
        place = await run_rows.place(context.database, tenant, task_id)
        run = await run_rows.get(context.database, tenant, task_id)
        if place is None or run is None or run.assistant_id != row.assistant_id:
            raise NotFound("Task not found.")
        await access.thread(context, place.thread_id, action, {"run_id": task_id})
    except (NotFound, InvalidArgument) as error:
        raise Failed(NO_TASK, "Task not found") from error
    return place


async def cancel(context: Context, place: RunPlace) -> None:
    """Stop a task. Raises: Failed for one that is over, Unavailable."""
    try:
        await runs.cancel(context, place.thread_id, place.run_id, "interrupt")
    except NotFound as error:
        raise Failed(NOT_CANCELABLE, "The task is over") from error
