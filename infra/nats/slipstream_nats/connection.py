"""One connection to NATS that outlives outages: it reconnects for ever and says so, one line each time."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from slipstream_schemas.errors import Corrupt, NoResponder, TooLarge, Unavailable
from slipstream_schemas.limits import (
    CONNECT_DEADLINE_S,
    PING_INTERVAL_S,
    PINGS_UNANSWERED_MAX,
    REQUEST_DEADLINE_S,
)

log = logging.getLogger("slipstream.nats")

RECONNECT_WAIT_S = 0.2
PENDING_BYTES_MAX = 32 * 1024 * 1024

Callback = Callable[[Msg], Awaitable[None]]


def shown(url: str) -> str:
    """An address without its credentials, for people."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class _Client(Client):
    """nats-py, without its wait for a broken connection to take what was written.

    It closes a connection before it makes the next one, and closing waits until all bytes are sent: a peer that is gone
    without a word takes none, so the client would never connect again.
    """

    async def _process_op_err(self, e: Exception) -> None:
        transport = self._transport
        if isinstance(transport, TcpTransport) and not (self.is_closed or self.is_reconnecting):
            writer = transport._io_writer  # pyright: ignore[reportPrivateUsage]
            if writer is not None:
                writer.transport.abort()
        await super()._process_op_err(e)


class Connection:
    """A NATS client with deadlines. Every failure to reach a server is `Unavailable`.

    `url` may name several servers of a cluster, separated by commas.
    """

    def __init__(self, url: str, name: str) -> None:
        self._urls, self._name = [each.strip() for each in url.split(",")], name
        self._where = ", ".join(shown(each) for each in self._urls)
        self._client: Client = _Client()
        self._on_reconnect: list[Callable[[], None]] = []
        self._on_disconnect: list[Callable[[], None]] = []
        self._up = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up now."""
        return self._client.is_connected

    @property
    def payload_bytes_max(self) -> int:
        """The largest message that the server accepts, headers included."""
        return self._client.max_payload

    async def wait_connected(self) -> None:
        """Return as soon as the connection is up. Raises: Unavailable when it was closed for good."""
        while not self._client.is_connected:
            if self._client.is_closed:
                raise Unavailable("the connection to NATS is closed")
            self._up.clear()
            await self._up.wait()

    async def open(self, deadline_s: float = CONNECT_DEADLINE_S) -> None:
        """Connect, trying until the deadline. Raises: Unavailable."""
        error: Exception | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while True:
                    try:
                        return await self._connect()
                    except (OSError, nats.errors.Error) as failed:
                        error = failed
                        await asyncio.sleep(RECONNECT_WAIT_S)
        raise Unavailable(f"no NATS server answers at {self._where} within {deadline_s:.0f} s: {error}")

    async def _connect(self) -> None:
        self._client = _Client()
        await self._client.connect(
            self._urls,
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # It only sleeps for it.
            connect_timeout=2,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=PINGS_UNANSWERED_MAX,
            pending_size=PENDING_BYTES_MAX,
            allow_reconnect=True,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            error_cb=self._error,
        )

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each reconnect; call what is returned to stop that."""
        self._on_reconnect.append(callback)
        return lambda: self._on_reconnect.remove(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each loss of the connection."""
        self._on_disconnect.append(callback)

    async def _disconnected(self) -> None:
        if not self._client.is_closed:
            log.warning("%s: lost NATS at %s, reconnecting", self._name, self._where)
        for callback in self._on_disconnect:
            callback()

    async def _reconnected(self) -> None:
        log.warning("%s: connected to NATS again", self._name)
        self._up.set()
        for callback in tuple(self._on_reconnect):
            callback()

    async def _error(self, error: Exception) -> None:
        # While reconnecting nats-py reports each refused attempt; the two lines above say it once.
        if self._client.is_connected:
            log.error("%s: NATS reports %s: %s", self._name, type(error).__name__, error)

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Hand a message to the connection. It may be lost: nothing acknowledges it. Raises: Unavailable, TooLarge."""
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise TooLarge(f"{len(payload)} bytes are more than NATS takes ({self.payload_bytes_max})") from error
        except nats.errors.Error as error:
            raise Unavailable(f"cannot publish to NATS: {type(error).__name__}") from error

    async def flush(self) -> None:
        """Wait until the server has what was published. Raises: Unavailable."""
        try:
            await self._client.flush(timeout=int(REQUEST_DEADLINE_S))
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS does not answer") from error

    async def subscribe(self, subject: str, *, cb: Callback, queue: str = "") -> Subscription:
        """Deliver messages to `cb`, one after the other. Raises: Unavailable."""
        try:
            return await self._client.subscribe(
                subject, queue=queue, cb=cb, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
        except nats.errors.Error as error:
            raise Unavailable(f"cannot subscribe on NATS: {type(error).__name__}") from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop a subscription; harmless when the connection is gone."""
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()

    def new_inbox(self) -> str:
        """A subject that nobody else listens to."""
        return self._client.new_inbox()

    async def request(self, subject: str, body: bytes, deadline_s: float = REQUEST_DEADLINE_S) -> Msg:
        """Ask and wait. Raises: NoResponder, Unavailable."""
        try:
            return await self._client.request(subject, body, timeout=deadline_s)
        except nats.errors.NoRespondersError as error:
            raise NoResponder(f"nobody answers on {subject}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"no answer on {subject} within {deadline_s:.1f} s") from error

    async def api(self, operation: str, body: object, deadline_s: float = REQUEST_DEADLINE_S) -> dict[str, Any]:
        """Call the JetStream API, as in `api("STREAM.INFO.S", {})`.

        Returns the answer, with its `error` object if it has one. Raises: Unavailable, Corrupt.
        """
        message = await self.request(f"$JS.API.{operation}", msgspec.json.encode(body), deadline_s)
        try:
            return msgspec.json.decode(message.data, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise Corrupt(f"JetStream answered {operation} with something unreadable") from error

    async def close(self) -> None:
        """Close for good."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                await self._client.close()
        self._up.set()


async def connect(url: str, name: str, deadline_s: float = CONNECT_DEADLINE_S) -> Connection:
    """Open a connection. Raises: Unavailable when no server answers within the deadline."""
    connection = Connection(url, name)
    await connection.open(deadline_s)
    return connection
