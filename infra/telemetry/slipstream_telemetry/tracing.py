"""Spans, when somebody collects them; without that, only the caller's trace is carried along.

Parents are named by their `traceparent`, the very text that requests and records carry, so that a span finds its parent
in another process and after a crash the same way as in the task next door.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

log = logging.getLogger("slipstream.tracing")

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NEEDED: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
Attributes = Mapping[str, str | int | float | bool]


class Span:
    """A stretch of work. This one is nobody's: it passes its parent on."""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent

    def name(self, name: str, attributes: Attributes) -> None:
        """Say what it is, once that is known."""

    def end(self, error: str = "") -> None:
        """It is over; with an error, it failed."""

    def entered(self) -> AbstractContextManager[None]:
        """What the user's own libraries record meanwhile belongs to it."""
        return contextlib.nullcontext()


class Tracing:
    """Makes spans. This one makes none."""

    is_recording = False

    def start(self, name: str, parent: str, attributes: Attributes | None = None, *, kind: str = "internal") -> Span:
        """Begin a span below `parent`, a traceparent, or a trace of its own. `kind`: server, consumer, internal."""
        return Span(parent)

    def close(self) -> None:
        """Send what has not been sent; may block for some seconds."""


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables name a collector."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environment.get(name) for name in ENDPOINTS)


def open_tracing(service: str, environment: Mapping[str, str] | None = None) -> Tracing:
    """Spans go where the standard OTEL_* variables say, if they do and the `otel` extra is installed."""
    if not is_wanted(os.environ if environment is None else environment):
        return Tracing()
    if not _is_installed():
        log.warning("%s is set, but traces need the extra: pip install 'slipstream[otel]'", ENDPOINTS[1])
        return Tracing()
    from slipstream_telemetry.otel import open_exporting

    return open_exporting(service)


def _is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in NEEDED)
    except ModuleNotFoundError:
        return False
