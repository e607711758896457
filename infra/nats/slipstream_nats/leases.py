"""Leases: who may write a thread log. Taking one appends its record; the record's seq is the fence."""

import time

import msgspec

from slipstream_nats.publisher import Publisher
from slipstream_schemas import subjects
from slipstream_schemas.subjects import Scope


class LeaseTaken(msgspec.Struct):
    """The record of a lease: who took it, for which run, and when by the holder's clock (nothing decides by it)."""

    holder: str
    run_id: str
    at_ms: int


async def take(publisher: Publisher, scope: Scope, thread_id: str, holder: str, run_id: str) -> int:
    """Take the lease of a thread; every later publish of the holder before is refused. Returns the fence.

    The record never ages out, since an expired one would refuse its living holder. Raises: Unavailable.
    """
    body = msgspec.json.encode(LeaseTaken(holder, run_id, time.time_ns() // 1_000_000))
    return (await publisher.publish(subjects.lease(scope, thread_id), body, {"Nats-TTL": "never"})).stream_seq
