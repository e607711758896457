"""The figures of an API process, and those of its region that an answer of the log or the rows is needed for."""

import asyncio
import time
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slipstream_nats.figures import StreamFigures, stream_figures
from slipstream_postgres import runs
from slipstream_schemas import subjects
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.limits import METRICS_SAMPLE_AGE_S, METRICS_SAMPLE_DEADLINE_S
from slipstream_telemetry.metrics import ProcessMetrics, PublishMetrics

if TYPE_CHECKING:
    from slipstream_api.context import Context

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WEBSOCKET"})
OTHER: Final = "other"


class ApiMetrics:
    """What an API measures."""

    def __init__(self) -> None:
        self.process = process = ProcessMetrics("api")
        self.publishes = PublishMetrics(process)
        self._requests = process.counter(
            "slipstream_http_requests", "Requests by route, method and status.", "route", "method", "status"
        )
        self._starts = process.histogram(
            "slipstream_http_response_start_seconds", "From a request to the start of its answer: streams last.",
            "route", "method",
        )  # fmt: skip
        streams = process.gauge("slipstream_open_streams", "Open event streams of this process.", "transport")
        self.streams = {transport: streams.labels(transport) for transport in ("sse", "websocket")}
        self.samples = Samples()
        process.registry.register(self.samples)

    def answered(self, route: str, method: str, status: int, took_s: float) -> None:
        """A request has its status. Methods are the client's words, so unknown ones share a series."""
        method = method if method in METHODS else OTHER
        self._requests.labels(route, method, str(status)).inc()
        self._starts.labels(route, method).observe(took_s)


class Samples(Collector):
    """Figures that cost a question. Scrapes renew them, no more often than `METRICS_SAMPLE_AGE_S`.

    What cannot be learned is left out: an old figure would look like a healthy one.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._due = 0.0
        self._reachable: dict[str, bool] = {}
        self._runs: dict[str, int] = {}
        self._quarantined: int | None = None
        self._lag: int | None = None
        self._logs: dict[str, StreamFigures] = {}

    async def renew(self, context: "Context") -> None:
        """Ask again if the figures are old."""
        async with self._lock:
            if time.monotonic() < self._due:
                return
            rows, log = await asyncio.gather(_or_not(self._ask_rows(context)), _or_not(self._ask_log(context)))
            self._reachable = {"postgres": rows, "nats": log}
            if not rows:
                self._runs, self._quarantined = {}, None
            if not log:
                self._logs, self._lag = {}, None
            self._due = time.monotonic() + METRICS_SAMPLE_AGE_S

    async def _ask_rows(self, context: "Context") -> None:
        self._runs = await runs.count_unfinished(context.database)
        self._quarantined = await runs.count_quarantined(context.database)

    async def _ask_log(self, context: "Context") -> None:
        region = context.settings.region
        head = await context.control.newest_seq(region)
        # The position is heard, not asked for: when the projector is gone it stays, and the lag grows.
        self._lag = max(0, head - context.position)
        for name, stream in (
            ("threads", subjects.threads_stream(region)),
            ("control", subjects.control_stream(region)),
        ):
            self._logs[name] = await stream_figures(context.connection, stream, METRICS_SAMPLE_DEADLINE_S)

    def collect(self) -> Iterable[Metric]:
        """The figures as they were learned."""
        yield _family("slipstream_reachable", "Whether the log and the rows answered the last time.", "part",
                      {part: int(answers) for part, answers in self._reachable.items()})  # fmt: skip
        yield _family("slipstream_runs", "Runs that wait or run, in the whole region.", "status", self._runs)
        yield _family("slipstream_consumers", "JetStream consumers: readers of the logs, those of all processes.",
                      "log", {name: found.consumer_count for name, found in self._logs.items()})  # fmt: skip
        yield _family("slipstream_log_bytes", "Size of the logs on disk, of one replica.", "log",
                      {name: found.bytes for name, found in self._logs.items()})  # fmt: skip
        for name, text, value in (
            ("slipstream_projection_lag_records", "Control head minus the projector's position.", self._lag),
            ("slipstream_quarantined_records", "Control records that could not be applied.", self._quarantined),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value)


def _family(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    out = GaugeMetricFamily(name, text, labels=[label])
    for each, value in values.items():
        out.add_metric([each], value)
    return out


async def _or_not(asking: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(METRICS_SAMPLE_DEADLINE_S):
            await asking
    except (SlipstreamError, TimeoutError):
        return False
    return True
