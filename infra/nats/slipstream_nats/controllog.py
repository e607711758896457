"""The control log: read the head, decide, append with the head's seq as the expectation."""

import asyncio
import random
import time
from collections.abc import Callable

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.publisher import Publisher, WrongSequence
from slipstream_nats.stored import StoredMessage, at_seq, last_of_subject, next_of_subject, purge, purge_all
from slipstream_schemas import subjects
from slipstream_schemas.errors import Conflict, Corrupt, NoRoom, Unavailable
from slipstream_schemas.limits import DECIDE_TRIES_MAX, PUBLISH_DEADLINE_S, TOMBSTONE_KEPT_S
from slipstream_schemas.record import TRANSITION_HEADER
from slipstream_schemas.run_state import ThreadState, Transition, decode_transition, encode_transition, resolve
from slipstream_schemas.subjects import Scope

DECIDE_DEADLINE_S = 2 * PUBLISH_DEADLINE_S
"""Longer than the change of a leader, which a command should survive."""
HEAD_DEADLINE_S = 2.0
RETRY_WAIT_S = 0.1


class Head(msgspec.Struct, frozen=True):
    """The newest transition of a thread; `stream_seq` 0 and no transition for a thread that never was."""

    stream_seq: int
    transition: Transition | None

    @property
    def state(self) -> ThreadState | None:
        """The folded state, with this record's seq filled in."""
        return None if self.transition is None else resolve(self.transition.state, self.stream_seq)


class _Doubt(msgspec.Struct):
    """The append whose outcome is not known, and how often others were first."""

    command_id: str | None = None
    expected_seq: int = 0
    races: int = 0


Decision = Callable[[ThreadState | None], Transition]


class ControlLog:
    """The control logs of a region."""

    def __init__(self, connection: Connection, publisher: Publisher, region: str) -> None:
        self._connection, self._publisher = connection, publisher
        self._stream = subjects.control_stream(region)

    async def head(self, scope: Scope, thread_id: str) -> Head:
        """The thread's head, from the stream's leader. Raises: Unavailable, Corrupt."""
        found = await last_of_subject(
            self._connection, self._stream, subjects.control(scope, thread_id), HEAD_DEADLINE_S
        )
        if found is None:
            return Head(0, None)
        return Head(found.stream_seq, _decode(found))

    async def newest_seq(self, region: str) -> int:
        """The seq of the region's newest transition, from the stream's leader, 0 for none. Raises: Unavailable."""
        found = await last_of_subject(
            self._connection, self._stream, subjects.family("control", region), HEAD_DEADLINE_S
        )
        return 0 if found is None else found.stream_seq

    async def creation(self, scope: Scope, thread_id: str) -> Transition | None:
        """The first transition of the thread as it is, behind the tombstone of an earlier one; None for none.

        Raises: Unavailable, Corrupt.
        """
        subject, seq = subjects.control(scope, thread_id), 1
        while True:
            found = await next_of_subject(self._connection, self._stream, subject, seq)
            if found is None:
                return None
            transition = _decode(found)
            if transition.name != "thread_deleted":
                return transition
            seq = found.stream_seq + 1

    async def append(self, scope: Scope, thread_id: str, transition: Transition, expected_seq: int) -> int:
        """Append behind the head `expected_seq`; returns the new seq.

        A command that was stored within the dedupe window keeps its first seq, at or below `expected_seq`.
        Raises: WrongSequence, Unavailable, TooLarge, Corrupt.
        """
        headers = {
            TRANSITION_HEADER: transition.name,
            # Dedupe spans the stream, and clients may choose command ids: they are told apart by thread.
            "Nats-Msg-Id": f"control:{subjects.thread_key(scope, thread_id)}:{transition.command_id}",
            "Nats-Expected-Last-Subject-Sequence": str(expected_seq),
        }
        if transition.state.erased:
            headers["Nats-TTL"] = f"{TOMBSTONE_KEPT_S}s"
        subject = subjects.control(scope, thread_id)
        return (await self._publisher.publish(subject, encode_transition(transition), headers)).stream_seq

    async def append_once(self, scope: Scope, thread_id: str, transition: Transition, expected_seq: int) -> int:
        """As `append`, repeated while its acknowledgement is in doubt: the change of a leader is outlived.

        Raises: WrongSequence when another transition was first, Unavailable, TooLarge, Corrupt.
        """
        end, doubt = time.monotonic() + DECIDE_DEADLINE_S, _Doubt(expected_seq=expected_seq)
        while True:
            try:
                return await self.append(scope, thread_id, transition, expected_seq)
            except WrongSequence:
                stored = await self._stored_after(scope, thread_id, doubt, await self.head(scope, thread_id))
                if stored is None:
                    raise
                return stored[1]
            except Unavailable as error:
                doubt.command_id = transition.command_id
                if time.monotonic() > end or isinstance(error, NoRoom):
                    raise
                await asyncio.sleep(RETRY_WAIT_S)

    async def decide(
        self, scope: Scope, thread_id: str, decision: Decision, *, outage_s: float = DECIDE_DEADLINE_S
    ) -> tuple[Transition, int]:
        """Append what `decision` makes of the head's state, reading again when somebody else was first.

        `decision` is called once a try and must give the same `command_id` each time: an append whose acknowledgement
        was lost is found again by it. Returns the transition that is stored under that id, and its seq.
        Raises: what `decision` raises, Unavailable after `outage_s` (the command may be stored), NoRoom (it is not; at
        once, unless a longer outage was asked for), TooLarge, Corrupt, Conflict after `DECIDE_TRIES_MAX` lost races.
        """
        end = time.monotonic() + outage_s
        doubt = _Doubt()
        while True:
            try:
                return await self._decide_once(scope, thread_id, decision, doubt)
            except WrongSequence as error:
                doubt.races += 1
                if doubt.races == DECIDE_TRIES_MAX:
                    raise Conflict(f"thread {thread_id} changed {doubt.races} times while deciding") from error
                await asyncio.sleep(random.uniform(0, 0.001 * min(doubt.races, 20)))
            except Unavailable as error:
                if time.monotonic() > end or (isinstance(error, NoRoom) and outage_s <= DECIDE_DEADLINE_S):
                    raise
                await asyncio.sleep(RETRY_WAIT_S)

    async def _decide_once(
        self, scope: Scope, thread_id: str, decision: Decision, doubt: _Doubt
    ) -> tuple[Transition, int]:
        head = await self.head(scope, thread_id)
        stored = await self._stored_after(scope, thread_id, doubt, head)
        if stored is not None:
            return stored
        transition = decision(head.state)
        doubt.command_id, doubt.expected_seq = transition.command_id, head.stream_seq
        stream_seq = await self.append(scope, thread_id, transition, head.stream_seq)
        if stream_seq > head.stream_seq:
            return transition, stream_seq
        return await self._at(stream_seq), stream_seq

    async def _stored_after(
        self, scope: Scope, thread_id: str, doubt: _Doubt, head: Head
    ) -> tuple[Transition, int] | None:
        """Our own transition, if the append in doubt was stored: it expected a head, so it lies right behind it."""
        if doubt.command_id is None or head.stream_seq == doubt.expected_seq:
            return None
        subject = subjects.control(scope, thread_id)
        found = await next_of_subject(self._connection, self._stream, subject, doubt.expected_seq + 1)
        if found is None:
            return None
        transition = _decode(found)
        return (transition, found.stream_seq) if transition.command_id == doubt.command_id else None

    async def _at(self, stream_seq: int) -> Transition:
        found = await at_seq(self._connection, self._stream, stream_seq)
        if found is None:
            raise Conflict(f"the command was carried out before, at {stream_seq}, and its record is gone")
        return _decode(found)

    async def purge_work(self, scope: Scope, thread_id: str) -> None:
        """Delete the thread's work items, which stay when they have been acknowledged. Raises: Unavailable."""
        await purge_all(self._connection, self._stream, subjects.work(scope, thread_id))

    async def purge_before(self, scope: Scope, thread_id: str, stream_seq: int) -> None:
        """Delete the thread's control records before `stream_seq`, which stays. Raises: Unavailable."""
        await purge(self._connection, self._stream, subjects.control(scope, thread_id), stream_seq - 1)


def _decode(message: StoredMessage) -> Transition:
    try:
        return decode_transition(message.body)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"control record {message.stream_seq} on {message.subject} is unreadable: {error}") from error
