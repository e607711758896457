"""Spans through the OpenTelemetry SDK. Imported only where traces are collected: see `open_tracing`."""

from contextlib import AbstractContextManager
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from slipstream_telemetry.metrics import package_version
from slipstream_telemetry.tracing import Attributes, Span, Tracing

KINDS: Final = {"server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER, "internal": SpanKind.INTERNAL}
UNNAMED: Final = "unknown_service"
CLOSE_DEADLINE_MS: Final = 3000
_propagator: Final = TraceContextTextMapPropagator()


class RecordedSpan(Span):
    """A span that is sent to the collector when it ends."""

    def __init__(self, span: trace.Span) -> None:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(span))
        super().__init__(carrier.get("traceparent", ""))
        self._span = span

    def name(self, name: str, attributes: Attributes) -> None:
        """Say what it is, once that is known."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)

    def end(self, error: str = "") -> None:
        """It is over; with an error, it failed. Again changes nothing."""
        if not self._span.is_recording():
            return
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()

    def entered(self) -> AbstractContextManager[None]:
        """What the user's own libraries record meanwhile belongs to it."""
        return _Entered(self._span)


class _Entered(AbstractContextManager[None]):
    """`use_span` as a context manager without a value; errors are ours to record."""

    def __init__(self, span: trace.Span) -> None:
        self._using = trace.use_span(span, record_exception=False, set_status_on_exception=False)

    def __enter__(self) -> None:
        self._using.__enter__()

    def __exit__(self, *error: object) -> None:
        self._using.__exit__(None, None, None)


class RecordingTracing(Tracing):
    """Makes spans that a provider exports."""

    is_recording = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("slipstream", package_version("slipstream"))

    def start(self, name: str, parent: str, attributes: Attributes | None = None, *, kind: str = "internal") -> Span:
        """Begin a span below `parent`, a traceparent, or a trace of its own."""
        # Not the current context: a parent is what was carried here, and nothing else.
        context = _propagator.extract({"traceparent": parent}, context=trace.set_span_in_context(trace.INVALID_SPAN))
        return RecordedSpan(self._tracer.start_span(name, context, KINDS[kind], attributes))

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.force_flush(CLOSE_DEADLINE_MS)


def open_exporting(service: str) -> Tracing:
    """Export over OTLP/HTTP, as the standard variables say; a provider that the user's code has set is used instead."""
    known = trace.get_tracer_provider()
    if isinstance(known, TracerProvider):
        return RecordingTracing(known)
    provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return RecordingTracing(provider)


def _resource(service: str) -> Resource:
    """What the OTEL_* variables say; our name where they say none."""
    found = Resource.create({"service.version": package_version("slipstream")})
    if str(found.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        found = found.merge(Resource({SERVICE_NAME: service}))
    return found
