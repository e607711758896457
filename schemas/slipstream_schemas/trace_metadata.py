"""What of a run's metadata goes into its trace: what one can filter by, and no payload."""

import re
from collections.abc import Mapping
from typing import Any, Final

from slipstream_schemas.limits import TRACE_METADATA_KEYS_MAX, TRACE_METADATA_VALUE_CHARS_MAX

PREFIX: Final = "langfuse.trace.metadata."
"""The name that Aegra gives such attributes, and Langfuse reads."""
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def trace_attributes(metadata: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The attributes of a run's spans: up to 32 short keys with texts, numbers and booleans; long texts are cut.

    What does not fit stays in the run's row alone: clients put whole objects there, and are not refused for it.
    """
    out: dict[str, str | int | float | bool] = {}
    for key, value in metadata.items():
        if len(out) == TRACE_METADATA_KEYS_MAX:
            break
        if _KEY.fullmatch(key) and isinstance(value, (str, int, float)):
            out[PREFIX + key] = value[:TRACE_METADATA_VALUE_CHARS_MAX] if isinstance(value, str) else value
    return out
