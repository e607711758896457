"""What an operator's tools see: figures of a scrape, and the spans that a collector receives."""

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

DEADLINE_S: Final = 20.0
FAILED: Final = 2


class Figures:
    """One scrape of `GET /metrics`."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=DEADLINE_S) as answer:
            self.content_type, self.text = answer.headers["content-type"], answer.read().decode()
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float | None:
        """One figure, None if it is not there."""
        return self._values.get((name, tuple(sorted(labels.items()))))

    def __call__(self, name: str, **labels: str) -> float:
        """One figure, 0 if it is not there: series begin with their first event."""
        return self.get(name, **labels) or 0.0


class SeenSpan(msgspec.Struct):
    """A span as a collector has it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, str]


class Collector:
    """An OTLP/HTTP endpoint. Use it as a context manager."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        found = self.spans

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take spans."""
                body = self.rfile.read(int(self.headers["content-length"]))
                found.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of_trace(self, trace_id: str) -> dict[str, SeenSpan]:
        """The spans of a trace by name."""
        return {span.name: span for span in list(self.spans) if span.trace_id == trace_id}


def spans_of(request: ExportTraceServiceRequest) -> list[SeenSpan]:
    """The spans of one export."""
    out: list[SeenSpan] = []
    for resource in request.resource_spans:
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes = {each.key: each.value.string_value for each in span.attributes}
                out.append(
                    SeenSpan(names["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(),
                             span.parent_span_id.hex(), span.status.code == FAILED, attributes)
                )  # fmt: skip
    return out
