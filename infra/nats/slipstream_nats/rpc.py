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
    cls.__name__: cls for cls in (errors.Rejected, errors.NotFound, errors.Conflict, errors.Unavailable)
}


class _Reply(msgspec.Struct, omit_defaults=True):
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    message: str = ""


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
        known = next((name for name, cls in _ERRORS.items() if type(error) is cls), None)
        reply = _Reply(error=known or ("Rejected" if isinstance(error, errors.Rejected) else "Unavailable"),
                       message=error.message)  # fmt: skip
    except Exception:
        log.exception("a request on %s failed", message.subject)
        reply = _Reply(error="Unavailable", message="the request failed; the runner's log says why")
    if message.reply:
        await connection.publish(message.reply, msgspec.json.encode(reply))


async def call(connection: Connection, subject: str, body: bytes, deadline_s: float = REQUEST_DEADLINE_S) -> bytes:
    """Ask and return the answer's JSON bytes. Raises: NoResponder, Unavailable, and what the other side rejected."""
    message = await connection.request(subject, body, deadline_s)
    reply = msgspec.json.decode(message.data, type=_Reply)
    if reply.error:
        raise _ERRORS.get(reply.error, errors.Unavailable)(reply.message)
    return bytes(reply.ok)
