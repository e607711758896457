"""Records: one flush of a run, one message of the thread log.

The compact header says whose record it is and what was open when it began, so that a v1 renderer or a new attempt that
starts in the middle reads the few records that matter and not the run.
"""

from typing import Any, Final

import msgspec

from slipstream_schemas.errors import Corrupt

RECORD_HEADER: Final = "Slipstream-Record"
TRANSITION_HEADER: Final = "Slipstream-Transition"
SCHEMA_VERSION: Final = 1
AHEAD: Final = -1
"""The ordinal of a terminal record that is told ahead of its place. That of a posted state is 1."""


class OpenMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message that has started and not finished. `seq` is that of its message-start line."""

    namespace: tuple[str, ...]
    message_id: str
    llm_run_id: str
    seq: int
    node: str | None = None


class OpenState(msgspec.Struct, frozen=True, array_like=True):
    """What is open at the start of a record. `namespaces` are subgraphs that have started, outermost first."""

    messages: tuple[OpenMessage, ...] = ()
    namespaces: tuple[tuple[str, ...], ...] = ()


NOTHING_OPEN: Final = OpenState()


class RecordHeader(msgspec.Struct, frozen=True):
    """Whose record it is. Attempt 0 stands for a record that no attempt wrote (a posted state, an owed terminal)."""

    run_id: str
    attempt: int
    ordinal: int
    open: OpenState = NOTHING_OPEN
    version: int = SCHEMA_VERSION

    @property
    def is_ahead(self) -> bool:
        """Whether this tells the end of a run amid the output of another, behind whose end it is told again (ADR 40).

        It is for those who follow that one run; who follows the thread reads the later one.
        """
        return not self.attempt and self.ordinal == AHEAD


class Record(msgspec.Struct):
    """A record as the log returned it."""

    stream_seq: int
    header: RecordHeader
    body: bytes
    timestamp_ms: int = 0

    @property
    def lines(self) -> list[bytes]:
        """The lines, in order; line `i` has the seq `stream_seq << 8 | i`."""
        return self.body.split(b"\n")

    @property
    def is_erasure(self) -> bool:
        """Whether this ends the log of a thread that was deleted."""
        return not self.header.run_id


ERASED: Final = RecordHeader("", 0, 0)
"""Of the record that ends a thread log whose thread was deleted: who follows it learns that nothing more will come."""
ERASED_BODY: Final = b'{"type":"erased"}'

_encode_open = msgspec.json.Encoder().encode
_decode_open = msgspec.json.Decoder(OpenState).decode


def header_value(header: RecordHeader) -> str:
    """`1 <run> <attempt> <ordinal>[ <open as JSON>]`: short, since header parsing is the reader's largest cost."""
    short = f"{header.version} {header.run_id} {header.attempt} {header.ordinal}"
    if header.open == NOTHING_OPEN:
        return short
    # Headers are ASCII for every client: escape what JSON would leave as UTF-8.
    text = _encode_open(header.open).decode()
    return f"{short} {text if text.isascii() else text.encode('ascii', 'backslashreplace_json').decode()}"


def parse_header(value: str) -> RecordHeader:
    """Read a header value. Raises: Corrupt for one of another version or shape."""
    parts = value.split(" ", 4)
    try:
        if parts[0] != str(SCHEMA_VERSION):
            raise Corrupt(f"record of schema version {parts[0]}; this build reads {SCHEMA_VERSION}")
        opened = _decode_open(parts[4]) if len(parts) == 5 else NOTHING_OPEN
        return RecordHeader(parts[1], int(parts[2]), int(parts[3]), opened)
    except (IndexError, ValueError) as error:
        raise Corrupt(f"unreadable record header {value[:80]!r}") from error


def message_id(run_id: str, attempt: int, ordinal: int) -> str:
    """The `Nats-Msg-Id` of a record of an attempt."""
    return f"{run_id}:{attempt}:{ordinal}"


def terminal_message_id(run_id: str) -> str:
    """The `Nats-Msg-Id` of a run's terminal record."""
    return f"{run_id}:terminal"


def ahead_message_id(run_id: str) -> str:
    """The `Nats-Msg-Id` of a run's terminal record that is told ahead of its place."""
    return f"{run_id}:terminal:ahead"


def _escape_json(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs: list[Any] = [units[i : i + 2].hex() for i in range(0, len(units), 2)]
    return "".join(f"\\u{pair}" for pair in pairs), error.end


import codecs  # noqa: E402  registered next to the function that it serves

codecs.register_error("backslashreplace_json", _escape_json)
