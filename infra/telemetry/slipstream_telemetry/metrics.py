"""Figures about a process, in the words of Prometheus. One registry for each process, made when it starts."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

FAST_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Buckets for what takes one trip to the log or the rows."""
SLOW_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0)
"""Buckets for what waits for a slot, or for a model."""


def package_version(name: str) -> str:
    """The version of a package, `unknown` when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


class ProcessMetrics:
    """What every process says: its build, its memory and files, and how long the log takes to acknowledge."""

    def __init__(self, service: str) -> None:
        # A creation time for each series doubles what is scraped, and Prometheus knows resets without it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = {"service": service, "version": package_version("slipstream"), "python": platform.python_version()}
        build = Gauge("slipstream_build_info", "What runs here; always 1.", list(labels), registry=self.registry)
        build.labels(**labels).set(1)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A counter of this process."""
        return Counter(name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A gauge of this process."""
        return Gauge(name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = FAST_S) -> Histogram:
        """A histogram of this process, of seconds."""
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


class PublishMetrics:
    """How long the log takes. Looking a label up costs more than counting, so the series are looked up once."""

    def __init__(self, process: ProcessMetrics) -> None:
        took = process.histogram(
            "slipstream_publish_seconds", "From a publish to its acknowledgement by the log, by how it went.", "outcome"
        )
        self._stored, self._refused, self._failed = (
            took.labels(outcome) for outcome in ("stored", "refused", "failed")
        )

    def published(self, took_s: float, outcome: str) -> None:
        """A publish is over: `stored`, `refused` (by its expectation, as fences do) or `failed`."""
        match outcome:
            case "stored":
                self._stored.observe(took_s)
            case "refused":
                self._refused.observe(took_s)
            case _:
                self._failed.observe(took_s)
