"""A WebSocket of protocol v2: commands in, answers and events out, every frame a JSON object.

All subscriptions of a socket share one pass over the log, in its order. Clients hand an event to each of their
subscriptions that it matches, whichever it was sent for, so a second stream beside the first would show them an end
before its beginning. A subscription that begins further back starts the pass over at its cursor; what the others have
had by then, their *floor*, is not sent for them again.
"""

import asyncio
import base64
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec
from litestar import WebSocket

from slipstream_api import access, commands, following, run_tree
from slipstream_api.bodies import convert
from slipstream_api.commands import Answer, Call, Method, Outcome, Refused
from slipstream_api.context import Context
from slipstream_api.heart import Pulse
from slipstream_api.peer import Patience
from slipstream_api.watchers import WATCHER
from slipstream_nats.cursor import CursorLost
from slipstream_nats.tail import TailRecord
from slipstream_schemas import lines
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.codec import dumps
from slipstream_schemas.commands import (
    CommandEnvelope,
    EventStreamRequest,
    ReconnectParams,
    SubscribeParams,
    UnsubscribeParams,
)
from slipstream_schemas.errors import Forbidden, NotFound, Rejected, SlipstreamError, Unavailable
from slipstream_schemas.ids import check_thread_id
from slipstream_schemas.limits import SOCKET_SUBSCRIPTIONS_MAX, SSE_SEND_DEADLINE_S, SSE_SLICE_EVENTS_MAX
from slipstream_schemas.seq import last_of, pack, parse

log = logging.getLogger("slipstream.socket")

CLOSE_DONE: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_BROKEN: Final = 1011
CLOSE_REFUSED: Final = 4422
"""4000 and the status that a stream over HTTP would be refused with: then clients do not come back with the same."""
CLOSE_DEADLINE_S: Final = 1.0


class Subscription(msgspec.Struct):
    """What a client wants to see. Everything up to `floor` it has, or has not asked for."""

    chosen: ChannelFilter
    floor: int

    def wants(self, seq: int, line: bytes) -> bool:
        """Whether the line is to be sent for it."""
        return seq > self.floor and self.chosen.matches(line)


class Closed(Exception):
    """The socket is to be closed. `code` is a WebSocket close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Session:
    """One open socket."""

    def __init__(self, context: Context, thread_id: str, socket: WebSocket[Any, Any, Any]) -> None:
        self._context, self._thread_id, self._socket = context, thread_id, socket
        self._client = following.client_of(socket)
        self._pace = following.pace_of(context, self._client)
        self._subscriptions: dict[str, Subscription] = {}
        self._leaving: dict[str, Callable[[], None]] = {}
        self._reading: tuple[Context, access.Watch] | None = None
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._patience = Patience(socket.scope)
        self._methods: dict[str, Method] = {
            **commands.METHODS,
            "subscription.subscribe": self._subscribe,
            "subscription.unsubscribe": self._unsubscribe,
            "subscription.reconnect": self._reconnect,
        }

    async def run(self) -> None:
        """Serve until the client goes, the process stops, or the log cannot be read."""
        await self._socket.accept()
        parts = [asyncio.create_task(part) for part in (self._listen(), self._pump(), self._attend())]
        try:
            check_thread_id(self._thread_id)
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Closed as closed:
            await self._close(closed.code, closed.reason)
        except TimeoutError:
            log.warning("dropped a socket of %s that read nothing for %.0f s", self._thread_id, SSE_SEND_DEADLINE_S)
            self._patience.give_up()
        except SlipstreamError as error:
            log.warning("the socket of %s ended: %s", self._thread_id, error.message)
            is_clients_fault = isinstance(error, (CursorLost, Rejected, Forbidden))
            await self._close(CLOSE_REFUSED if is_clients_fault else CLOSE_BROKEN, error.shown)
        finally:
            for leave in self._leaving.values():
                leave()
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _close(self, code: int, reason: str) -> None:
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._socket.close(code, reason[:100])

    async def _attend(self) -> None:
        """Until the process stops. Raises: Closed, TimeoutError when the client reads nothing."""
        pulse, heart = Pulse(), self._context.heart
        heart.join(pulse)
        try:
            while not heart.is_closing:
                await pulse.wake.wait()
                pulse.wake.clear()
                self._patience.waits()
        finally:
            heart.leave(pulse)
        raise Closed(CLOSE_GOING_AWAY, "the server stops")

    async def _send(self, frame: bytes) -> None:
        """Send one frame. It may wait for the client for as long as that takes something now and then."""
        async with self._sending:
            await self._socket.send_data(frame.decode(), mode="text")
            self._patience.moved()

    # Commands

    async def _listen(self) -> None:
        while True:
            message: Any = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message["type"] != "websocket.receive":
                continue
            raw = message.get("bytes") or (message.get("text") or "").encode(errors="replace")
            answer = await self._answer(raw)
            await self._send(dumps(answer.body))

    async def _answer(self, raw: bytes) -> Answer:
        envelope = commands.envelope_of(raw)
        if not isinstance(envelope, CommandEnvelope):
            return envelope
        try:
            return await commands.execute(
                Call(self._context.acting_for(self._context.caller), self._thread_id, envelope.params),
                envelope,
                self._methods,
            )
        except Unavailable as error:
            log.warning("%s on %s: %s", envelope.method, self._thread_id, error.message)
            return commands.failure(envelope.id, "unknown_error", f"503: {error.shown}")

    async def _subscribe(self, call: Call) -> Outcome:
        asked = convert(call.params, SubscribeParams)
        chosen = following.filter_of(asked)
        given = asked.since if isinstance(asked.since, int) else None
        since = None if given is None else following.check_since(given)
        watch = await access.stream(call.context, self._thread_id)
        try:
            since = await following.begin(call.context, self._thread_id, since, chosen.channels, watch)
        except CursorLost as error:
            # Some clients do not read the answers to their subscriptions, and would wait for events for ever.
            await self._send(dumps(commands.failure(None, "invalid_argument", error.message).body))
            raise Closed(CLOSE_REFUSED, error.message) from error
        self._check_room(1)
        subscription_id = id_of(asked)
        self._add(subscription_id, Subscription(chosen, since), call.context, watch)
        if chosen.channels <= WATCHER:
            self._leaving[subscription_id] = call.context.unwatched.join(call.context.own_key(self._thread_id))
        return Outcome({"subscription_id": subscription_id})

    def _check_room(self, more: int) -> None:
        if len(self._subscriptions) + more > SOCKET_SUBSCRIPTIONS_MAX:
            raise Refused("invalid_argument", f"a socket has at most {SOCKET_SUBSCRIPTIONS_MAX} subscriptions")

    def _add(self, subscription_id: str, subscription: Subscription, context: Context, watch: access.Watch) -> None:
        self._subscriptions[subscription_id] = subscription
        self._reading = context, watch
        self._changed.set()

    async def _unsubscribe(self, call: Call) -> Outcome:
        asked = convert(call.params, UnsubscribeParams)
        if self._subscriptions.pop(asked.subscription_id, None) is None:
            raise Refused("no_such_subscription", "The socket has no such subscription.")
        if (leave := self._leaving.pop(asked.subscription_id, None)) is not None:
            leave()
        self._changed.set()
        return Outcome({})

    async def _reconnect(self, call: Call) -> Outcome:
        """Subscriptions of an earlier socket, on whatever instance, go on behind the last event that came through."""
        asked = convert(call.params, ReconnectParams)
        wanted = [(each, following.filter_of(request_of(each))) for each in dict.fromkeys(asked.subscriptions)]
        last = asked.last_event_id
        seq = None if last is None else parse(last)
        context, watch = call.context, await access.stream(call.context, self._thread_id)
        if not watch.is_open:
            raise NotFound(access.NO_THREAD)
        view = await run_tree.view(context, self._thread_id, watch, asked.run_id, last if seq is None else None)
        if seq is not None:
            if await context.tails.check_cursor(context.scope, self._thread_id, seq) is not None:
                return Outcome({"restored": False})
        elif last is not None:
            if view.cursor is None:
                return Outcome({"restored": False})
            seq = view.cursor
        self._check_room(sum(each not in self._subscriptions for each, _ in wanted))
        for subscription_id, chosen in wanted:
            self._add(subscription_id, Subscription(chosen, view.begins_at if seq is None else seq), context, watch)
        nodes = [node.entry() for node in view.nodes.values()]
        return Outcome({"restored": True, "current_namespaces": nodes})

    # Events

    async def _pump(self) -> None:
        position = 0
        active: dict[str, Subscription] = {}
        while True:
            await self._changed.wait()
            self._changed.clear()
            for known in active.values():
                known.floor = max(known.floor, position)
            active = dict(self._subscriptions)
            if active:
                position = await self._pass(active, min(each.floor for each in active.values()))

    async def _pass(self, active: dict[str, Subscription], since: int) -> int:
        """Send what the subscriptions want, until they change; the cursor behind what they have had then."""
        assert self._reading is not None, "subscriptions come with leave to read"
        context, watch = self._reading
        changed = asyncio.create_task(self._changed.wait())
        position = since
        is_watcher = all(each.chosen.channels <= WATCHER for each in active.values())
        joined = context.readers.joined(context.own_key(self._thread_id), self._client, is_watcher=is_watcher)
        try:
            with joined as reader:
                async with aclosing(following.follow(context, self._thread_id, since, watch, reader)) as batches:
                    while (batch := await _next_unless(batches, changed)) is not None:
                        for item in batch:
                            if isinstance(item, TailRecord):
                                position = last_of(item.stream_seq)
                                await self._send_record(item, active)
                            elif not isinstance(item, following.Answered) or _carries_input(active):
                                await self._send(msgspec.json.encode(item))
        finally:
            changed.cancel()
        return position

    async def _send_record(self, record: TailRecord, active: dict[str, Subscription]) -> None:
        base, sent = pack(record.stream_seq, 0), 0
        for number, line in enumerate(record.lines):
            if number >= record.first_line and any(each.wants(base + number, line) for each in active.values()):
                await self._send(lines.splice_seq(line, base + number))
                sent += 1
        assert sent <= SSE_SLICE_EVENTS_MAX
        # uvicorn's send does not yield when its buffer has room.
        await asyncio.sleep(sent / self._pace if self._pace else 0)


def _carries_input(active: dict[str, Subscription]) -> bool:
    return any("input" in each.chosen.channels for each in active.values())


async def _next_unless(
    batches: AsyncGenerator[list[following.Item]], changed: "asyncio.Task[Any]"
) -> list[following.Item] | None:
    """The next batch, None when the subscriptions change before it comes. Nothing is lost: the pass starts over."""
    if changed.done():
        return None
    reading = asyncio.create_task(_next(batches))
    await asyncio.wait((reading, changed), return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        return reading.result()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return None


async def _next(batches: AsyncGenerator[list[following.Item]]) -> list[following.Item]:
    try:
        return await anext(batches)
    except StopAsyncIteration:
        raise Closed(CLOSE_DONE, "the thread was deleted") from None


# The id of a subscription says what it carries, so that any instance can restore it.


def id_of(asked: EventStreamRequest) -> str:
    """A new id for a subscription."""
    said: dict[str, Any] = {"channels": asked.channels, "namespaces": asked.namespaces}
    if isinstance(asked.depth, int):
        said["depth"] = asked.depth
    return f"{os.urandom(4).hex()}.{base64.urlsafe_b64encode(msgspec.json.encode(said)).decode().rstrip('=')}"


def request_of(subscription_id: str) -> EventStreamRequest:
    """What a subscription carries. Raises: Refused."""
    _, _, said = subscription_id.partition(".")
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)), type=EventStreamRequest)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Refused("no_such_subscription", f"No such subscription: {subscription_id[:80]}") from error
