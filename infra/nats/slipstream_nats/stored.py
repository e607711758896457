"""Reading single messages of a stream from its leader. Direct Get may be served by a follower that lags."""

import base64
from datetime import UTC, datetime

import msgspec

from slipstream_nats.connection import Connection
from slipstream_schemas.errors import Corrupt, Unreachable
from slipstream_schemas.limits import REQUEST_DEADLINE_S

NOT_FOUND = 10037


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as the stream holds it."""

    stream_seq: int
    subject: str
    body: bytes
    headers: dict[str, str]
    timestamp_ms: int


class _Message(msgspec.Struct):
    subject: str
    seq: int
    time: str
    data: str = ""
    hdrs: str = ""


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a message, from their block (`NATS/1.0`, then a line each)."""
    out: dict[str, str] = {}
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            out[name.decode()] = value.strip().decode()
    return out


async def _get(
    connection: Connection, stream: str, query: dict[str, object], deadline_s: float = REQUEST_DEADLINE_S
) -> StoredMessage | None:
    answer = await connection.api(f"STREAM.MSG.GET.{stream}", query, deadline_s)
    if "error" in answer:
        if answer["error"].get("err_code") == NOT_FOUND:
            return None
        if answer["error"].get("code") == 404:
            raise Corrupt(f"stream {stream} does not exist: run `slipstream provision`")
        raise Unreachable(f"JetStream cannot read {stream}: {answer['error'].get('description')}")
    found = msgspec.convert(answer["message"], _Message)
    # Go prints nanoseconds, Python reads microseconds.
    moment = datetime.fromisoformat(found.time[:19] + "+00:00")
    fraction = found.time[20:].rstrip("Z")
    millis = int(moment.timestamp()) * 1000 + int((fraction + "000")[:3])
    headers = parse_headers(base64.b64decode(found.hdrs)) if found.hdrs else {}
    return StoredMessage(found.seq, found.subject, base64.b64decode(found.data), headers, millis)


async def last_of_subject(
    connection: Connection, stream: str, subject: str, deadline_s: float = REQUEST_DEADLINE_S
) -> StoredMessage | None:
    """The newest message of a subject, from the leader. Raises: Unavailable, Corrupt."""
    return await _get(connection, stream, {"last_by_subj": subject}, deadline_s)


async def at_seq(connection: Connection, stream: str, stream_seq: int) -> StoredMessage | None:
    """The message with this seq, from the leader. Raises: Unavailable, Corrupt."""
    return await _get(connection, stream, {"seq": stream_seq})


async def next_of_subject(connection: Connection, stream: str, subject: str, from_seq: int) -> StoredMessage | None:
    """The first message of a subject at or behind `from_seq`, from the leader. Raises: Unavailable, Corrupt."""
    return await _get(connection, stream, {"seq": from_seq, "next_by_subj": subject})


async def first_since(connection: Connection, stream: str, subject: str, at: datetime) -> StoredMessage | None:
    """The first message of a subject that was stored since `at`, from the leader. Raises: Unavailable, Corrupt."""
    moment = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return await _get(connection, stream, {"start_time": moment, "next_by_subj": subject})


async def purge(connection: Connection, stream: str, subject: str, through_seq: int) -> None:
    """Delete a subject's messages up to and including `through_seq`. Raises: Unavailable."""
    answer = await connection.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": through_seq + 1})
    if "error" in answer:
        raise Unreachable(f"JetStream cannot purge {subject}: {answer['error'].get('description')}")


async def purge_all(connection: Connection, stream: str, subject: str) -> None:
    """Delete all messages of a subject. Raises: Unavailable."""
    answer = await connection.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    if "error" in answer:
        raise Unreachable(f"JetStream cannot purge {subject}: {answer['error'].get('description')}")
