"""The lines that frame a run: the root's `running`, and the record that ends it with its open interrupts.

The terminal record is built when the run's end is decided and travels in the `run_ended` transition, so that whoever
publishes it publishes the same bytes.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from slipstream_schemas.ids import synthetic_event_id
from slipstream_schemas.limits import RECORD_LINES_MAX
from slipstream_schemas.lines import encode_line

TERMINAL_INTERRUPTS_MAX: Final = RECORD_LINES_MAX - 1
"""More open interrupts than these are told in records before the terminal one."""
RootStatus = Literal["completed", "failed", "interrupted"]


class Interrupt(msgspec.Struct, frozen=True):
    """An interrupt that waits for an answer."""

    id: str
    value: Any
    namespace: tuple[str, ...] = ()
    task_id: str = ""


def running_line(run_id: str, graph_name: str, now_ms: int, attempt: int) -> bytes:
    """The root lifecycle event that begins an attempt; attempt 0 is a run that ends before it began."""
    data = {"event": "running", "graph_name": graph_name}
    x = {"attempt": attempt, "run_id": run_id}
    return encode_line("lifecycle", (), data, now_ms, synthetic_event_id(run_id, "running"), x=x)


def requested_lines(run_id: str, interrupts: Sequence[Interrupt], now_ms: int) -> list[bytes]:
    """The `input.requested` events of interrupts."""
    out: list[bytes] = []
    for number, interrupt in enumerate(interrupts):
        data = {"interrupt_id": interrupt.id, "payload": interrupt.value, "value": interrupt.value}
        x = {"n": number, "t": interrupt.task_id}
        event_id = f"{run_id}:input:{interrupt.id}"
        out.append(encode_line("input.requested", interrupt.namespace, data, now_ms, event_id, x=x))
    return out


def terminal_body(
    run_id: str,
    status: RootStatus,
    now_ms: int,
    *,
    graph_name: str,
    run_status: str,
    attempt: int = 0,
    error: dict[str, str] | None = None,
    interrupts: Sequence[Interrupt] = (),
    before: Sequence[bytes] = (),
) -> bytes:
    """The body of the terminal record.

    `before` are lines that close what is open (messages, subgraphs); `error` is `{"error": type, "message": text}`;
    `run_status` is the status of the run's row, which v1 renderers need in `x`.
    """
    out = [*before, *requested_lines(run_id, interrupts, now_ms)]
    data = {"event": status, "graph_name": graph_name}
    if error is not None:
        data["error"] = error["message"] if not error.get("error") else f"{error['error']}: {error['message']}"
    x: dict[str, object] = {"status": run_status, "attempt": attempt, "run_id": run_id}
    if error is not None:
        x["error"] = error
    out.append(encode_line("lifecycle", (), data, now_ms, synthetic_event_id(run_id, status), x=x))
    return b"\n".join(out)
