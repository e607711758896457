"""Questions and answers between processes, over core NATS."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from slipstream_nats.connection import Connection
from slipstream_schemas import errors
from slipstream_schemas.limits import REQUEST_DEADLINE_S

log = logging.getLogger("slipstream.rpc")

Answer = Callable[[bytes], Awaitable[bytes]]
_ERRORS: dict[str, type[errors.SlipstreamError]] = {
    cls.__name__: cls
    for cls in (
        errors.Rejected, errors.InvalidArgument, errors.NotFound, errors.NoSuchInterrupt, errors.TooLarge,
        errors.Conflict, errors.Unavailable, errors.Unreachable, errors.Corrupt,
    )
}  # fmt: skip


class _Reply(msgspec.Struct, omit_defaults=True):
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    message: str = ""
    loc: tuple[str | int, ...] = ()


async def serve(connection: Connection, subject: str, answer: Answer, queue: str = "") -> Subscription:
    """Answer requests on `subject`, each in a task of its own. `answer` takes and returns JSON bytes.

    Raises: Unavailable.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def on_request(message: Msg) -> None:
        task = asyncio.create_task(_reply(connection, message, answer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return await connection.subscribe(subject, cb=on_request, queue=queue)


async def _reply(connection: Connection, message: Msg, answer: Answer) -> None:
    try:
        reply = _Reply(msgspec.Raw(await answer(message.data)))
    except errors.SlipstreamError as error:
        reply = _envelope(error)
    except Exception:
        log.exception("a request on %s failed", message.subject)
        reply = _Reply(error="Unavailable", message="the request failed; the runner's log says why")
    if not message.reply:
        return
    try:
        try:
            await connection.publish(message.reply, msgspec.json.encode(reply))
        except errors.TooLarge as error:
            await connection.publish(message.reply, msgspec.json.encode(_envelope(error)))
    except errors.Unavailable as error:
        log.warning("an answer on %s is lost: %s", message.subject, error.message)


def _envelope(error: errors.SlipstreamError) -> _Reply:
    # The nearest class that the other side knows; subclasses with more to them travel as what they are at heart.
    name = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _ERRORS), "Unavailable")
    return _Reply(error=name, message=error.message, loc=error.loc if isinstance(error, errors.InvalidArgument) else ())


async def call(connection: Connection, subject: str, body: bytes, deadline_s: float = REQUEST_DEADLINE_S) -> bytes:
    """Ask and return the answer's JSON bytes. Raises: NoResponder, Unavailable, Corrupt, and what `answer` raised."""
    message = await connection.request(subject, body, deadline_s)
    try:
        reply = msgspec.json.decode(message.data, type=_Reply)
    except msgspec.MsgspecError as error:
        raise errors.Corrupt(f"unreadable answer on {subject}") from error
    if reply.error == errors.InvalidArgument.__name__:
        raise errors.InvalidArgument(reply.message, reply.loc)
    if reply.error:
        raise _ERRORS.get(reply.error, errors.Unavailable)(reply.message)
    return bytes(reply.ok)


async def listen(connection: Connection, subject: str, take: Callable[[bytes], None]) -> None:
    """Hand the body of every message on `subject` to `take`. Nothing is kept while nobody listens.

    Raises: Unavailable.
    """

    async def on_message(message: Msg) -> None:
        take(message.data)

    await connection.subscribe(subject, cb=on_message)
