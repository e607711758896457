"""The trace that a request belongs to, as one line of text. Source: W3C Trace Context, section 3.2."""

import re
from contextvars import ContextVar
from typing import Final

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)

carried: ContextVar[str] = ContextVar("slipstream_traceparent", default="")
"""The traceparent of what this task works for, empty for none."""


def parse_traceparent(text: str | None) -> str:
    """The header's value in its form of version 00; empty for one that the specification says to ignore."""
    found = _FORM.fullmatch(text or "")
    if found is None:
        return ""
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return ""
    return f"00-{trace_id}-{parent_id}-{flags}"


def trace_id_of(traceparent: str) -> str:
    """The id that all parts of a trace share, empty for no trace."""
    return traceparent[3:35]
