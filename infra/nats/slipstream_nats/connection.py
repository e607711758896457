"""One connection to NATS that outlives outages: it reconnects for ever and says so, one line each time."""

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from slipstream_schemas.errors import Corrupt, NoResponder, Rejected, TooLarge, Unreachable
from slipstream_schemas.limits import (
    CONNECT_DEADLINE_S,
    PING_INTERVAL_S,
    PINGS_UNANSWERED_MAX,
    REQUEST_DEADLINE_S,
)
from slipstream_schemas.settings import ServiceSettings

log = logging.getLogger("slipstream.nats")

RECONNECT_WAIT_S = 0.2
BROKEN = (nats.errors.Error, OSError, RuntimeError)
"""What the client says without a connection. The loop notices a lost one before the client does, and a write then fails
in the loop's own words: uvloop's are a RuntimeError."""
PENDING_BYTES_MAX = 32 * 1024 * 1024

DENIED_SUBJECTS_MAX = 1000
DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
OPERATOR = "operator"
NOT_PERMITTED = "the NATS user lacks a permission (see `slipstream permissions`)"

Callback = Callable[[Msg], Awaitable[None]]


class Access(msgspec.Struct, frozen=True):
    """Where NATS is and how to get in. `service` names the inboxes, which permissions keep to that service.

    With a `ca_file` or a `tls://` address nothing is said to a server that does not prove its name over TLS.
    """

    url: str
    service: str = OPERATOR
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def inbox_prefix(self) -> str:
        """What the subjects of answers to this service begin with."""
        return f"_INBOX_{self.service}" if self.service else "_INBOX"

    def tls(self) -> ssl.SSLContext | None:
        """How to check the server and show a certificate, None for plain TCP. Raises: Rejected."""
        if not (self.ca_file or self.cert_file or self.url.startswith("tls://")):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except OSError as error:
            raise Rejected(f"cannot read the certificates for NATS: {error}") from error
        return context


def access_of(settings: ServiceSettings, service: str) -> Access:
    """How a service gets into NATS."""
    return Access(settings.nats_url, service, settings.nats_ca_file, settings.nats_cert_file, settings.nats_key_file)


class _Client(Client):
    """nats-py, without two of its ways.

    It gives its password to a server that leaves TLS out where it was asked for. And it closes a broken connection
    before it makes the next one, which waits until all bytes are sent: a peer that is gone without a word takes none,
    so the client would never connect again.
    """

    must_encrypt = False

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Called with the server's first line, before anything is sent. A man in the middle could leave the word out.
        if self.must_encrypt and initial_connection and not info.get("tls_required"):
            raise nats.errors.Error("the server does not offer TLS")
        await super()._process_info(info, initial_connection)

    async def _process_op_err(self, e: Exception) -> None:
        transport = self._transport
        if isinstance(transport, TcpTransport) and not (self.is_closed or self.is_reconnecting):
            writer = transport._io_writer  # pyright: ignore[reportPrivateUsage]
            if writer is not None:
                writer.transport.abort()
        await super()._process_op_err(e)


def shown(url: str) -> str:
    """An address without its credentials, for people."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class Connection:
    """A NATS client with deadlines. Every failure to reach a server is `Unavailable`.

    `url` may name several servers of a cluster, separated by commas.
    """

    def __init__(self, access: Access, name: str) -> None:
        self._access, self._name = access, name
        self._tls = access.tls()
        self._urls = [each.strip() for each in access.url.split(",")]
        self._where = ", ".join(shown(each) for each in self._urls)
        self._client: Client = _Client()
        self._denied: set[str] = set()
        self._failure: Exception | None = None
        self._on_denied: list[Callable[[str], None]] = []
        self._on_reconnect: list[Callable[[], None]] = []
        self._on_disconnect: list[Callable[[], None]] = []
        self._up = asyncio.Event()
        self._up_since = 0.0

    @property
    def up_s(self) -> float:
        """For how long the connection has been up, in seconds; 0 while it is not."""
        return time.monotonic() - self._up_since if self._client.is_connected else 0.0

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
                raise Unreachable("the connection to NATS is closed")
            self._up.clear()
            await self._up.wait()

    async def open(self, deadline_s: float = CONNECT_DEADLINE_S) -> None:
        """Connect, trying until the deadline. Raises: Unavailable."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while True:
                    try:
                        await self._connect()
                        self._up_since = time.monotonic()
                        return
                    except (OSError, nats.errors.Error) as failed:
                        self._failure = failed
                        await asyncio.sleep(RECONNECT_WAIT_S)
        raise Unreachable(f"no NATS server answers at {self._where} within {deadline_s:.0f} s: {self._failure}")

    async def _connect(self) -> None:
        self._client = client = _Client()
        client.must_encrypt = self._tls is not None
        await client.connect(
            self._urls,
            tls=self._tls,
            inbox_prefix=self._access.inbox_prefix,
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

    def on_denied(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each subject, in lower case, that this user may not publish to."""
        self._on_denied.append(callback)

    async def _disconnected(self) -> None:
        if not self._client.is_closed:
            log.warning("%s: lost NATS at %s, reconnecting", self._name, self._where)
        for callback in self._on_disconnect:
            callback()

    async def _reconnected(self) -> None:
        log.warning("%s: connected to NATS again", self._name)
        self._up_since = time.monotonic()
        self._up.set()
        for callback in tuple(self._on_reconnect):
            callback()

    def _note_denied(self, what: str, subject: str) -> None:
        """NATS says it once and not in answer to anything, so whoever waits would wait until its deadline."""
        if subject not in self._denied and len(self._denied) < DENIED_SUBJECTS_MAX:
            self._denied.add(subject)
            log.error('%s: %s, its %s to "%s" is refused', self._name, NOT_PERMITTED, what, subject)
        for callback in tuple(self._on_denied):
            callback(subject)

    async def _error(self, error: Exception) -> None:
        if (found := DENIED.search(str(error))) is not None:
            self._note_denied(found[1].lower(), found[2])
            return
        # It tries again by itself when it first connects, too, and tells the reason here alone.
        self._failure = error
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
        except BROKEN as error:
            raise Unreachable(f"cannot publish to NATS: {type(error).__name__}") from error

    async def flush(self) -> None:
        """Wait until the server has what was published. Raises: Unavailable."""
        try:
            await self._client.flush(timeout=int(REQUEST_DEADLINE_S))
        except BROKEN as error:
            raise Unreachable("NATS does not answer") from error

    async def subscribe(self, subject: str, *, cb: Callback, queue: str = "") -> Subscription:
        """Deliver messages to `cb`, one after the other. Raises: Unavailable."""
        try:
            return await self._client.subscribe(
                subject, queue=queue, cb=cb, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
        except BROKEN as error:
            raise Unreachable(f"cannot subscribe on NATS: {type(error).__name__}") from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop a subscription; harmless when the connection is gone."""
        with contextlib.suppress(*BROKEN):
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
        except BROKEN as error:
            if subject.lower() in self._denied:
                raise Unreachable(f"{NOT_PERMITTED} on {subject}") from error
            raise Unreachable(f"no answer on {subject} within {deadline_s:.1f} s") from error

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
        with contextlib.suppress(*BROKEN):
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                await self._client.close()
        self._up.set()


async def connect(access: Access | str, name: str, deadline_s: float = CONNECT_DEADLINE_S) -> Connection:
    """Open a connection, as an operator where only an address is given.

    Raises: Unavailable when no server answers within the deadline, Rejected for certificates that cannot be read.
    """
    connection = Connection(Access(access) if isinstance(access, str) else access, name)
    await connection.open(deadline_s)
    return connection
