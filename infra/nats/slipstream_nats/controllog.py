"""The control log: read the head, decide, append with the head's seq as the expectation."""

import asyncio
import random
from collections.abc import Callable

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.publisher import Publisher, WrongSequence
from slipstream_nats.stored import last_of_subject, purge
from slipstream_schemas import subjects
from slipstream_schemas.errors import Conflict, Corrupt
from slipstream_schemas.limits import DECIDE_TRIES_MAX, PUBLISH_DEADLINE_S
from slipstream_schemas.record import TRANSITION_HEADER
from slipstream_schemas.run_state import ThreadState, Transition, decode_transition, encode_transition, resolve
from slipstream_schemas.subjects import Scope


class Head(msgspec.Struct, frozen=True):
    """The newest transition of a thread; `stream_seq` 0 and no transition for a thread that never was."""

    stream_seq: int
    transition: Transition | None

    @property
    def state(self) -> ThreadState | None:
        """The folded state, with this record's seq filled in."""
        return None if self.transition is None else resolve(self.transition.state, self.stream_seq)


Decision = Callable[[ThreadState | None], Transition]


class ControlLog:
    """The control logs of a region."""

    def __init__(self, connection: Connection, publisher: Publisher, region: str) -> None:
        self._connection, self._publisher = connection, publisher
        self._stream = subjects.control_stream(region)

    async def head(self, scope: Scope, thread_id: str) -> Head:
        """The thread's head, from the stream's leader. Raises: Unavailable, Corrupt."""
        found = await last_of_subject(self._connection, self._stream, subjects.control(scope, thread_id))
        if found is None:
            return Head(0, None)
        try:
            return Head(found.stream_seq, decode_transition(found.body))
        except msgspec.MsgspecError as error:
            raise Corrupt(f"control record {found.stream_seq} of thread {thread_id} is unreadable: {error}") from error

    async def append(self, scope: Scope, thread_id: str, transition: Transition, expected_seq: int) -> int:
        """Append behind the head `expected_seq`; returns the new seq. Raises: WrongSequence, Unavailable, Corrupt."""
        headers = {
            TRANSITION_HEADER: transition.name,
            "Nats-Msg-Id": f"control:{transition.command_id}",
            "Nats-Expected-Last-Subject-Sequence": str(expected_seq),
        }
        subject = subjects.control(scope, thread_id)
        return (await self._publisher.publish(subject, encode_transition(transition), headers)).stream_seq

    async def decide(self, scope: Scope, thread_id: str, decision: Decision) -> tuple[Transition, int]:
        """Append what `decision` makes of the head's state, reading again when somebody else was first.

        `decision` is called once a try and must give the same `command_id` each time: after a lost acknowledgement the
        head may be our own transition. Returns the transition and its seq.
        Raises: what `decision` raises, Unavailable, Corrupt, Conflict after `DECIDE_TRIES_MAX` tries.
        """
        doubtful: str | None = None
        for attempt in range(DECIDE_TRIES_MAX):
            head = await self.head(scope, thread_id)
            if doubtful is not None and head.transition is not None and head.transition.command_id == doubtful:
                return head.transition, head.stream_seq
            transition = decision(head.state)
            try:
                return transition, await self.append(scope, thread_id, transition, head.stream_seq)
            except WrongSequence:
                doubtful = transition.command_id
                await asyncio.sleep(random.uniform(0, 0.001 * min(attempt, 20)))  # noqa: S311
        raise Conflict(f"thread {thread_id} changed {DECIDE_TRIES_MAX} times while deciding")

    async def purge_before(self, scope: Scope, thread_id: str, stream_seq: int) -> None:
        """Delete the thread's control records before `stream_seq`, which stays. Raises: Unavailable."""
        await purge(self._connection, self._stream, subjects.control(scope, thread_id), stream_seq - 1)


DECIDE_DEADLINE_S = 2 * PUBLISH_DEADLINE_S
