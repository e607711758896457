"""Protocol v2's commands, the same over HTTP and WebSocket: an envelope in, an envelope out."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from slipstream_api import run_tree, runs
from slipstream_api.bodies import convert, decode
from slipstream_api.context import Context
from slipstream_api.thread_rows import row_of
from slipstream_schemas import errors
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.commands import CommandEnvelope, GetTreeParams, InputRespondParams, RunStartParams
from slipstream_schemas.limits import BODY_BYTES_MAX
from slipstream_schemas.seq import last_of


class Answer(msgspec.Struct):
    """The envelope of an answer, and its status over HTTP: errors of well-formed commands are answered with 200."""

    body: dict[str, Any]
    status: int = 200


class Outcome(msgspec.Struct):
    """What a command did. `log_seq` is the thread log's last stream_seq when it was accepted, if it writes."""

    result: dict[str, Any]
    log_seq: int | None = None


class Refused(errors.Rejected):
    """A command that is refused with a code of the protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Call(msgspec.Struct):
    """A command on its way: who asks, on which thread, with what."""

    context: Context
    thread_id: str
    params: dict[str, Any]
    idempotency_key: str | None = None


Method = Callable[[Call], Awaitable[Outcome]]


def envelope_of(raw: bytes) -> CommandEnvelope | Answer:
    """A command, or the answer to something that is none. Raises: TooLarge."""
    if len(raw) > BODY_BYTES_MAX:
        raise errors.TooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes")
    plain: Any = None
    try:
        plain = decode(raw)
        envelope = convert(plain, CommandEnvelope)
    except errors.InvalidArgument as error:
        known = plain.get("id") if isinstance(plain, dict) else None  # pyright: ignore[reportUnknownMemberType]
        command_id = known if isinstance(known, int) and not isinstance(known, bool) else None
        return failure(command_id, "invalid_argument", _located(error), 400)
    if envelope.id < 0:
        return failure(None, "invalid_argument", "id: Input should be greater than or equal to 0", 400)
    return envelope


async def execute(call: Call, envelope: CommandEnvelope, methods: dict[str, Method]) -> Answer:
    """Run a command. Raises: Unavailable."""
    method = methods.get(envelope.method)
    if method is None:
        return failure(envelope.id, "unknown_command", f"Unknown command: {envelope.method[:80]}")
    try:
        outcome = await method(call)
    except errors.Unavailable:
        raise
    except errors.SlipstreamError as error:
        return refusal(envelope.id, error)
    body: dict[str, Any] = {"type": "success", "id": envelope.id, "result": outcome.result}
    if outcome.log_seq is not None:
        body["meta"] = {"applied_through_seq": last_of(outcome.log_seq)}
    return Answer(body)


def failure(command_id: int | None, code: str, message: str, status: int = 200) -> Answer:
    """The envelope of an error."""
    return Answer({"type": "error", "id": command_id, "error": code, "message": message}, status)


def refusal(command_id: int, error: errors.SlipstreamError) -> Answer:
    """The envelope of an error that was raised on purpose."""
    prefix = "409: " if isinstance(error, errors.Conflict) else ""
    return failure(command_id, _code(error), prefix + _located(error))


def _located(error: errors.SlipstreamError) -> str:
    where = ".".join(str(part) for part in error.loc[1:]) if isinstance(error, errors.InvalidArgument) else ""
    return f"{where}: {error.message}" if where else error.message


def _code(error: errors.SlipstreamError) -> str:
    match error:
        case Refused():
            return error.code
        case errors.NoSuchInterrupt():
            return "no_such_interrupt"
        case errors.NoSuchGraph() | errors.NotFound():
            return "no_such_run"
        case errors.Rejected():
            return "invalid_argument"
        case _:
            return "unknown_error"


async def run_start(call: Call) -> Outcome:
    """`run.start`: the thread is created if need be, and an interrupted one goes on."""
    start = convert(call.params, RunStartParams)
    body = runs.RunCreate(
        start.assistant_id, input=start.input, config=start.config, metadata=start.metadata,
        multitask_strategy=start.multitask_strategy, interrupt_before=start.interrupt_before,
        interrupt_after=start.interrupt_after,
    )  # fmt: skip
    created = await runs.resolve(call.context, call.thread_id, body, key=call.idempotency_key, creates_thread=True)
    known = await runs.repeated(call.context, created, call.idempotency_key)
    if known is not None:
        return _started(known)
    accepted = await runs.accept(call.context, created, resumes=True)
    if accepted.created_thread:
        call.context.fresh.note(call.thread_id)
    return _started(accepted)


def _started(accepted: runs.Accepted) -> Outcome:
    return Outcome({"run_id": accepted.run_id}, accepted.log_seq)


async def input_respond(call: Call) -> Outcome:
    """`input.respond`: a run that goes on with the answers. One of many concurrent ones wins."""
    respond = convert(call.params, InputRespondParams)
    answers = _answers(respond)
    command: dict[str, Any] = {"resume": {interrupt_id: value for interrupt_id, _, value in answers}}
    command.update({k: v for k, v in (("update", respond.update), ("goto", respond.goto)) if v is not None})
    graph_id = await _graph_of(call.context, call.thread_id)
    body = runs.RunCreate(graph_id, command=command, config=respond.config, metadata=respond.metadata)
    created = await runs.resolve(call.context, call.thread_id, body, key=call.idempotency_key)
    known = await runs.repeated(call.context, created, call.idempotency_key)
    if known is not None:
        return _started(known)
    expected = tuple(OpenInterrupt(interrupt_id, namespace) for interrupt_id, namespace, _ in answers)
    return _started(await runs.accept(call.context, created, expected))


def _answers(respond: InputRespondParams) -> list[tuple[str, tuple[str, ...], Any]]:
    if respond.responses is not None:
        answers = [(e.interrupt_id, tuple(e.namespace), e.response) for e in respond.responses]
    elif respond.interrupt_id is not None and respond.response is not msgspec.UNSET:
        answers = [(respond.interrupt_id, tuple(respond.namespace), respond.response)]
    else:
        text = "interrupt_id and response, or responses, are required"
        raise errors.InvalidArgument(text, ("body", "params"), "missing")
    if not answers or len({answer[0] for answer in answers}) != len(answers):
        raise errors.InvalidArgument("responses must name each interrupt once", ("body", "params", "responses"))
    return answers


async def _graph_of(context: Context, thread_id: str) -> str:
    """The assistant of the thread's last run. Raises: NoSuchInterrupt, Unavailable."""
    try:
        row = await row_of(context, thread_id)
    except errors.NotFound as error:
        raise errors.NoSuchInterrupt("The thread does not exist.") from error
    known = msgspec.json.decode(row.metadata)
    found: str | None = known.get("assistant_id") or known.get("graph_id")
    if found is None:
        raise errors.NoSuchInterrupt("The thread has no run that could wait for an answer.")
    return found


async def get_tree(call: Call) -> Outcome:
    """`agent.getTree`: the graphs of a run, the newest one's if none is named."""
    asked = convert(call.params, GetTreeParams)
    view = await run_tree.view(call.context, call.thread_id, asked.run_id)
    return Outcome({"tree": view.tree()})


async def input_inject(call: Call) -> Outcome:
    """`input.inject`: LangGraph cannot take input into a graph that runs."""
    raise Refused("not_supported", "LangGraph cannot take input into a running graph; start a run instead.")


async def _socket_only(call: Call) -> Outcome:
    raise Refused("not_supported", "Subscriptions live on a WebSocket; over HTTP, POST to …/stream/events.")


METHODS: Final[dict[str, Method]] = {
    "run.start": run_start,
    "input.respond": input_respond,
    "input.inject": input_inject,
    "agent.getTree": get_tree,
    "subscription.subscribe": _socket_only,
    "subscription.unsubscribe": _socket_only,
    "subscription.reconnect": _socket_only,
}
"""What HTTP answers; a WebSocket has methods of its own for its subscriptions."""
