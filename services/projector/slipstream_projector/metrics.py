"""The figures of the projector's process."""

import time
from collections.abc import Sequence

import msgspec

from slipstream_nats.inbox import Message
from slipstream_schemas import run_state as rs
from slipstream_schemas.record import TRANSITION_HEADER
from slipstream_telemetry.metrics import FAST_S, ProcessMetrics

ENDING = frozenset({"run_ended", "run_rolled_back", "run_cancel_requested", "run_created"})


def ends_of(transition: rs.Transition) -> list[str]:
    """The statuses of the runs that this transition ended; `rolled_back` for those that leave no row."""
    match transition.name:
        case "run_ended":
            return [msgspec.json.decode(transition.payload, type=rs.RunEnded).status]
        case "run_rolled_back":
            return ["rolled_back"]
        case "run_cancel_requested":
            request = msgspec.json.decode(transition.payload, type=rs.RunCancelRequested)
            return [_waited(request.action)] if request.ended else []
        case "run_created":
            created = msgspec.json.decode(transition.payload, type=rs.RunCreated)
            running = transition.state.running
            waited = [run_id for run_id in created.supersedes if running is None or run_id != running.run_id]
            return [_waited(created.strategy)] * len(waited)
        case _:
            return []


def _waited(action: str) -> str:
    return "rolled_back" if action == "rollback" else "interrupted"


class ProjectorMetrics:
    """What a projector measures. One that waits for the lock has nothing to say about the rows."""

    def __init__(self) -> None:
        self.process = process = ProcessMetrics("projector")
        self._records = process.counter("slipstream_projected_records", "Control records applied by this process.")
        self._delay = process.histogram(
            "slipstream_projection_delay_seconds", "From a record's place in the log to its rows.", buckets=FAST_S
        )
        self._ended = process.counter("slipstream_ended_runs", "Runs that ended, by status.", "status")
        self.quarantined = process.counter(
            "slipstream_quarantinings", "Control records that this process could not apply."
        )
        self._position = process.gauge("slipstream_projection_position", "The last stream_seq applied.")
        self._pending = process.gauge(
            "slipstream_projection_pending_records", "Control records behind the last one, when the broker sent it."
        )

    def starts_at(self, position: int) -> None:
        """The lock is ours, and rows are applied up to here."""
        self._position.set(position)

    def applied(self, batch: Sequence[Message], position: int) -> None:
        """The records have their rows."""
        now_s = time.time()
        self.starts_at(position)
        self._pending.set(batch[-1].pending)
        self._records.inc(len(batch))
        for message in batch:
            self._delay.observe(max(0.0, now_s - message.timestamp_ms / 1000))
            if (message.headers or {}).get(TRANSITION_HEADER) in ENDING:
                self._count_ends(message)

    def _count_ends(self, message: Message) -> None:
        try:
            ends = ends_of(rs.decode_transition(message.body))
        except msgspec.MsgspecError:
            return  # It is in the quarantine.
        for status in ends:
            self._ended.labels(status).inc()
