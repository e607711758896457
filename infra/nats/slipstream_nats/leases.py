"""Leases: who may write a thread log. Taking one appends its record; the record's seq is the fence."""

import time

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.publisher import Publisher
from slipstream_nats.stored import last_of_subject, purge
from slipstream_schemas import subjects
from slipstream_schemas.subjects import Scope


class LeaseTaken(msgspec.Struct):
    """The record of a lease: who took it, for which run, and when by the holder's clock (nothing decides by it)."""

    holder: str
    run_id: str
    at_ms: int


async def last(connection: Connection, scope: Scope, thread_id: str) -> int:
    """The seq of the newest lease, 0 when none was ever taken. Raises: Unavailable."""
    return (await newest(connection, scope, thread_id))[0]


async def newest(connection: Connection, scope: Scope, thread_id: str) -> tuple[int, LeaseTaken]:
    """The seq of the newest lease and its record; 0 and nobody when none was ever taken. Raises: Unavailable."""
    stream = subjects.threads_stream(scope.region)
    found = await last_of_subject(connection, stream, subjects.lease(scope, thread_id))
    if found is None:
        return 0, LeaseTaken("", "", 0)
    return found.stream_seq, msgspec.json.decode(found.body, type=LeaseTaken)


async def forget(connection: Connection, scope: Scope, thread_id: str, fence: int) -> None:
    """Delete the lease `fence` and those before it, of a thread that is gone: every late publish is refused then.

    Raises: Unavailable.
    """
    await purge(connection, subjects.threads_stream(scope.region), subjects.lease(scope, thread_id), fence)


async def take(
    publisher: Publisher, scope: Scope, thread_id: str, holder: str, run_id: str, expected: int | None = None
) -> int:
    """Take the lease of a thread; every later publish of the holder before is refused. Returns the fence.

    With `expected` it is taken only from the lease of that seq (0: from nobody), so that whoever took it since is left
    alone. The record never ages out, since an expired one would refuse its living holder.
    Raises: Unavailable, WrongSequence.
    """
    body = msgspec.json.encode(LeaseTaken(holder, run_id, time.time_ns() // 1_000_000))
    headers = {"Nats-TTL": "never"}
    if expected is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
    return (await publisher.publish(subjects.lease(scope, thread_id), body, headers)).stream_seq
