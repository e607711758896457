"""Log records as JSON: one object for each line, with the run and the thread that it is about."""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from slipstream_schemas.codec import dumps
from slipstream_schemas.traceparent import carried, trace_id_of

ABOUT_KEYS: Final = ("run_id", "thread_id")


def _nothing() -> Mapping[str, Any]:
    return {}


about: ContextVar[Callable[[], Mapping[str, Any]]] = ContextVar("slipstream_about", default=_nothing)
"""What this task works on, asked only when it logs: a request learns its thread after the task has begun."""


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, and where known `run_id`, `thread_id`, `trace_id` and `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()
        }  # fmt: skip
        known = about.get()()
        line.update({key: str(known[key]) for key in ABOUT_KEYS if known.get(key)})
        if carried.get():
            line["trace_id"] = trace_id_of(carried.get())
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return dumps(line).decode()
