"""The record with which an attempt begins: what its dead predecessor left open is closed, then the run is `running`."""

from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_schemas import lines
from slipstream_schemas.ids import synthetic_event_id
from slipstream_schemas.record import OpenMessage, Record

LOST = "the attempt was lost; another one begins"


async def opening_body(runtime: Runtime, attempt: Attempt) -> bytes:
    """The body of the first record. Raises: Unavailable, Corrupt."""
    run, at_ms = attempt.run, now_ms()
    out: list[bytes] = []
    if attempt.number > 1:
        last = await runtime.threads.last(attempt.scope, attempt.thread_id)
        if last is not None and last.header.run_id == run.run_id:
            out = closing_lines(last, f"{run.run_id}:{attempt.number}:1", at_ms)
    x = {"status": "running", "attempt": attempt.number, "run_id": run.run_id}
    # A client that knows the run is running drops the repeat; v1 reads the attempt out of `x`.
    event_id = synthetic_event_id(run.run_id, "running")
    started = {"event": "running", "graph_name": run.graph_id}
    out.append(lines.encode_line("lifecycle", (), started, at_ms, event_id, x=x))
    return b"\n".join(out)


def closing_lines(last: Record, stem: str, at_ms: int) -> list[bytes]:
    """Errors for the messages and ends for the subgraphs that were open behind the record `last`."""
    messages = {(m.namespace, m.message_id): m for m in last.header.open.messages}
    namespaces = dict.fromkeys(last.header.open.namespaces)
    for line in last.lines:
        view = lines.decode_line(line)
        event = view.data.get("event") if isinstance(view.data, dict) else None
        if view.method == "messages" and isinstance(view.data, dict):
            key = (view.namespace, view.data.get("message_id") or view.data.get("id") or "")
            if event == "message-start":
                messages[key] = OpenMessage(*key, view.data.get("run_id") or key[1], 0, view.node)
            elif event in ("message-finish", "error"):
                messages.pop(key, None)
        elif view.method == "lifecycle" and view.namespace:
            if event == "started":
                namespaces[view.namespace] = None
            else:
                namespaces.pop(view.namespace, None)
    out: list[bytes] = []
    for m in messages.values():
        error = {"event": "error", "message": LOST, "id": m.message_id, "message_id": m.message_id,
                 "run_id": m.llm_run_id}  # fmt: skip
        out.append(lines.encode_line("messages", m.namespace, error, at_ms, f"{stem}:{len(out)}", node=m.node))
    for namespace in sorted(namespaces, key=len, reverse=True):
        failed = {"event": "failed", "graph_name": namespace[-1].partition(":")[0], "error": LOST}
        out.append(lines.encode_line("lifecycle", namespace, failed, at_ms, f"{stem}:{len(out)}"))
    return out
