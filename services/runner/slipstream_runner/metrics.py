"""The figures of a runner process."""

from collections.abc import Callable

from slipstream_telemetry.metrics import SLOW_S, ProcessMetrics, PublishMetrics

UNKNOWN = "unknown"
"""The graph of a run that this runner does not have."""


class RunnerMetrics:
    """What a runner measures."""

    def __init__(self) -> None:
        self.process = process = ProcessMetrics("runner")
        self.publishes = PublishMetrics(process)
        self.queue_wait = process.histogram(
            "slipstream_queue_wait_seconds", "From the acceptance of a run to its first attempt.", buckets=SLOW_S
        )
        self._attempts = process.histogram(
            "slipstream_run_attempt_seconds", "How long an attempt at a run took, by graph and how it ended.",
            "graph", "outcome", buckets=SLOW_S,
        )  # fmt: skip
        self.lines = process.counter("slipstream_published_lines", "Events published to thread logs.")
        self._executing = process.gauge("slipstream_executing_runs", "Runs that this process executes.")
        self._waiting = process.gauge("slipstream_publish_queue_lines", "Events that wait for the log.")
        self._slots = process.gauge("slipstream_runner_slots", "Runs that this process executes at most.")

    def read_from(self, slots: int, executing: Callable[[], int], waiting_lines: Callable[[], int]) -> None:
        """What is asked for at each scrape, from another thread."""
        self._slots.set(slots)
        self._executing.set_function(lambda: float(executing()))
        self._waiting.set_function(lambda: float(waiting_lines()))

    def attempted(self, graph: str, outcome: str, took_s: float) -> None:
        """An attempt is over."""
        self._attempts.labels(graph, outcome).observe(took_s)
