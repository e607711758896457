"""Acknowledged publishing with a deadline for each message.

nats-py's `publish_async` never completes when JetStream refuses a message, and `publish` costs more than twice this:
one inbox for the process, a counter for a token, and the acknowledgement's seq cut out of its bytes.

A publish waits for the connection instead of going into the client's buffer: what lies there is sent after the outage,
long after its caller was told that it failed.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from slipstream_nats.connection import NOT_PERMITTED, Connection
from slipstream_schemas.errors import Conflict, Corrupt, Fenced, NoRoom, SlipstreamError, TooLarge, Unreachable
from slipstream_schemas.limits import MESSAGE_BYTES_MAX, PUBLISH_DEADLINE_S

log = logging.getLogger("slipstream.log")

WRONG_LAST_SEQUENCE = 10071
WRONG_LAST_SEQUENCE_IN_FLIGHT = 10164
MESSAGE_TOO_LARGE = 10054
NO_ROOM_CODES = frozenset({10002, 10023, 10028, 10047})
"""The limits of the account, what the server has, memory, storage. A stream at its own bound says `maximum …`."""
HEADER_LINE_BYTES = len(b": \r\n")
HEADER_FRAME_BYTES = len(b"NATS/1.0\r\n\r\n")
RETRY_WAIT_S = 0.005

Observe = Callable[[float, str], None]
"""Hears of each publish: the seconds it took, and `stored`, `refused` or `failed`."""

_SEQ = re.compile(rb'"seq":\s*(\d+)')
_ACTUAL = re.compile(r"wrong last sequence: (\d+)")


class Ack(msgspec.Struct, frozen=True):
    """Where a message lies in its stream. `duplicate` says that it lay there before."""

    stream_seq: int
    duplicate: bool = False


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


class WrongSequence(Conflict):
    """JetStream expected another last sequence; `actual` is the one it has (-1 if it did not say)."""

    def __init__(self, message: str, actual: int) -> None:
        super().__init__(message)
        self.actual = actual


class _InFlight(Conflict):
    """Another message that checks the same subject is in flight on a replicated stream; not stored, try again."""


def _nobody(took_s: float, outcome: str) -> None:
    """Nobody listens."""


def refusal(error: _Error) -> SlipstreamError:
    """The error for what JetStream answered."""
    if error.err_code == WRONG_LAST_SEQUENCE:
        found = _ACTUAL.search(error.description)
        return WrongSequence(error.description, int(found[1]) if found else -1)
    if error.err_code == WRONG_LAST_SEQUENCE_IN_FLIGHT:
        return _InFlight(error.description)
    if error.err_code == MESSAGE_TOO_LARGE:
        return TooLarge(f"a record is too large: {error.description}")
    if error.err_code in NO_ROOM_CODES or "maximum" in error.description:
        log.warning("JetStream has no room: %s (%d)", error.description, error.err_code)
        return NoRoom("The log has no room for more. Try again when somebody has made some.")
    if error.code >= 500:
        return Unreachable(f"JetStream cannot store: {error.description} ({error.err_code})")
    return Corrupt(f"JetStream refused a message: {error.description} ({error.err_code})")


class Publisher:
    """Publishes to streams and waits for their acknowledgements. One for a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = ""
        self._waiting: dict[str, tuple[str, asyncio.Future[Ack]]] = {}
        self._count = 0
        self.observe: Observe = _nobody

    async def open(self) -> None:
        """Begin to listen for acknowledgements. Raises: Unavailable."""
        self._inbox = self._connection.new_inbox()
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        self._connection.on_disconnect(self._doubt)
        self._connection.on_denied(self._deny)

    def _doubt(self) -> None:
        """Fail what is in flight at once: its acknowledgement cannot arrive any more."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(Unreachable("the connection to NATS was lost before the acknowledgement"))

    def _deny(self, subject: str) -> None:
        """Fail what this user may not publish: nothing will acknowledge it."""
        for asked, future in self._waiting.values():
            if asked.lower() == subject and not future.done():
                future.set_exception(Unreachable(f"{NOT_PERMITTED} to {asked}"))

    async def _on_reply(self, message: Msg) -> None:
        _, future = self._waiting.get(message.subject[len(self._inbox) + 1 :], ("", None))
        if future is None or future.done():
            return
        body = message.data
        if body.startswith(b'{"stream"'):
            found = _SEQ.search(body)
            if found:
                future.set_result(Ack(int(found[1]), b'"duplicate"' in body))
                return
        if not body:
            future.set_exception(Unreachable("no stream takes the subject, or JetStream has no leader"))
            return
        try:
            future.set_exception(refusal(msgspec.json.decode(body, type=_Refusal).error))
        except msgspec.MsgspecError:
            future.set_exception(Corrupt(f"unreadable acknowledgement: {body[:120]!r}"))

    async def publish(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None, deadline_s: float = PUBLISH_DEADLINE_S
    ) -> Ack:
        """Publish once and wait for the acknowledgement.

        Raises: WrongSequence, Unavailable (refused for now, or no answer by the deadline: then it may be stored, and
        only a retry with the same `Nats-Msg-Id` is safe), TooLarge, Corrupt.
        """
        _check_size(body, headers or {}, min(MESSAGE_BYTES_MAX, self._connection.payload_bytes_max))
        begun, outcome = time.perf_counter(), "failed"
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    try:
                        ack = await self._once(subject, body, headers)
                        outcome = "stored"
                        return ack
                    except _InFlight:
                        await asyncio.sleep(RETRY_WAIT_S)
        except WrongSequence:
            outcome = "refused"
            raise
        except TimeoutError as error:
            raise Unreachable(f"no acknowledgement within {deadline_s:.1f} s") from error
        finally:
            self.observe(time.perf_counter() - begun, outcome)

    async def _once(self, subject: str, body: bytes, headers: dict[str, str] | None) -> Ack:
        await self._connection.wait_connected()
        self._count += 1
        token = str(self._count)
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._waiting[token] = subject, future
        try:
            await self._connection.publish(subject, body, reply=f"{self._inbox}.{token}", headers=headers)
            return await future
        finally:
            del self._waiting[token]


def _check_size(body: bytes, headers: dict[str, str], bytes_max: int) -> None:
    # The server counts headers too, and answers a message over its limit by closing the connection: every other
    # publish would fail with it.
    size = len(body) + HEADER_FRAME_BYTES
    for name, value in headers.items():
        size += len(name) + len(value) + HEADER_LINE_BYTES
    if size > bytes_max:
        raise TooLarge(f"a record of {size} bytes is over the limit of {bytes_max} bytes")


async def open_publisher(connection: Connection) -> Publisher:
    """A publisher that is ready. Raises: Unavailable."""
    publisher = Publisher(connection)
    await publisher.open()
    return publisher


def as_fenced(error: WrongSequence, fence: int) -> SlipstreamError:
    """What a wrong sequence means for a fenced publish."""
    if error.actual == 0:
        return Corrupt(f"the lease record {fence} is missing from its stream: leases must never age out")
    return Fenced(f"lease {fence} was taken over by {error.actual}", error.actual)
