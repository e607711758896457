"""Envelopes of commands: one in, one out, and what a command sees of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from slipstream_api.bodies import convert, decode
from slipstream_api.context import Context
from slipstream_schemas import errors
from slipstream_schemas.commands import CommandEnvelope
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
    prefix = "409: " if isinstance(error, errors.Conflict) else "403: " if isinstance(error, errors.Forbidden) else ""
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
        case errors.Forbidden():
            return "permission_denied"
        case errors.Rejected():
            return "invalid_argument"
        case _:
            return "unknown_error"
