"""What a stream says about its size and its readers."""

import msgspec

from slipstream_nats.connection import Connection
from slipstream_schemas.errors import Unreachable


class StreamFigures(msgspec.Struct):
    """A stream's size and the number of its consumers."""

    messages: int
    bytes: int
    consumer_count: int


async def stream_figures(connection: Connection, stream: str, deadline_s: float) -> StreamFigures:
    """The figures now. Raises: Unavailable, Corrupt."""
    info = await connection.api(f"STREAM.INFO.{stream}", {}, deadline_s)
    if "error" in info:
        raise Unreachable(f"JetStream does not describe {stream}: {info['error'].get('description')}")
    return msgspec.convert(info["state"], StreamFigures)
