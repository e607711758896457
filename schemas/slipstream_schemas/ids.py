"""Names: what may stand in a subject, and how ids are made.

Ids are checked once, at the edge. The alphabet has no character that NATS gives a meaning (`.`, `*`, `>`, space).
"""

import os
import re
import time
import uuid

from slipstream_schemas.errors import InvalidArgument
from slipstream_schemas.limits import THREAD_ID_CHARS_MAX, TOKEN_CHARS_MAX

_ID = re.compile(r"[A-Za-z0-9_\-]+", re.ASCII)
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}", re.ASCII)
_SYSTEM_ASSISTANTS = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


def _check(value: str, what: str, chars_max: int, loc: tuple[str | int, ...]) -> str:
    if not value or len(value) > chars_max:
        raise InvalidArgument(f"{what} must have 1 to {chars_max} characters", loc)
    if _ID.fullmatch(value) is None:
        raise InvalidArgument(f"{what} may only hold letters, digits, '-' and '_'", loc)
    return value


def check_thread_id(value: str, loc: tuple[str | int, ...] = ("path", "thread_id")) -> str:
    """Return the thread id. Raises: InvalidArgument."""
    return _check(value, "thread_id", THREAD_ID_CHARS_MAX, loc)


def check_run_id(value: str, loc: tuple[str | int, ...] = ("path", "run_id")) -> str:
    """Return the run id. Raises: InvalidArgument."""
    return _check(value, "run_id", THREAD_ID_CHARS_MAX, loc)


def check_assistant_id(value: str, loc: tuple[str | int, ...] = ("body", "assistant_id")) -> str:
    """Return the id of a new assistant. Raises: InvalidArgument."""
    return _check(value, "assistant_id", THREAD_ID_CHARS_MAX, loc)


def check_token(value: str, what: str = "token") -> str:
    """Return a region or tenant token. Raises: InvalidArgument."""
    return _check(value, what, TOKEN_CHARS_MAX, (what,))


def uuid7() -> uuid.UUID:
    """A UUID of version 7: 48 bits of Unix milliseconds, then random. Source: RFC 9562, 5.7."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


def new_run_id() -> str:
    """A fresh run id, ordered by time."""
    return str(uuid7())


def new_thread_id() -> str:
    """A fresh thread id, ordered by time."""
    return str(uuid7())


def derived_id(*parts: str) -> str:
    """The same id for the same parts, for repeatable creation (`Idempotency-Key`)."""
    return str(uuid.uuid5(_SYSTEM_ASSISTANTS, "\x1f".join(parts)))


def system_assistant_id(graph_id: str) -> str:
    """The id of the assistant that every graph has. Source: langgraph-api's derivation, which clients rely on."""
    return str(uuid.uuid5(_SYSTEM_ASSISTANTS, graph_id))


def is_tool_name(name: str) -> bool:
    """Whether clients take this for the name of a tool. Source: MCP 2025-11-25, tool names."""
    return _TOOL_NAME.fullmatch(name) is not None


def synthetic_event_id(run_id: str, status: str) -> str:
    """The `event_id` of a root lifecycle event; the JS SDK reads the run id out of it."""
    return f"synth:{run_id}:lc||{status}"
