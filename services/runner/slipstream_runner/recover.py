"""What a dead attempt left open, and the lines that close it before the next attempt speaks."""

from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.translate import Draft
from slipstream_runner.translate.drafts import draft
from slipstream_schemas.answers import Answered
from slipstream_schemas.codec import dumps
from slipstream_schemas.lines import decode_line, encode_line
from slipstream_schemas.record import NOTHING_OPEN, OpenMessage, OpenState, Record
from slipstream_schemas.seq import pack
from slipstream_schemas.terminal import running_line

LOST = "the attempt was lost; the run goes on with the next one"


def open_after(record: Record) -> OpenState:
    """What is open behind a record: of its run, or of the one amid whose output it tells the end of another."""
    messages = {(m.namespace, m.message_id, m.llm_run_id): m for m in record.header.open.messages}
    namespaces = dict.fromkeys(record.header.open.namespaces)
    for number, line in enumerate(record.lines):
        view = decode_line(line)
        if view.method == "messages" and view.kind == "event":
            event = view.data["event"]
            call = (view.namespace, view.data["message_id"], view.data["run_id"])
            if event == "message-start":
                messages[call] = OpenMessage(*call, pack(record.stream_seq, number), view.node)
            elif event in ("message-finish", "error"):
                messages.pop(call, None)
        elif view.method == "lifecycle" and view.namespace:
            if view.data["event"] == "started":
                namespaces[view.namespace] = None
            else:
                namespaces.pop(view.namespace, None)
    return OpenState(tuple(messages.values()), tuple(namespaces))


async def opening_lines(runtime: Runtime, attempt: Attempt) -> list[Draft]:
    """The first lines of an attempt.

    They close what the attempt before left open, tell the root's `running`, and which interrupts the run answers.
    """
    run = attempt.run
    last = await runtime.threads.last(attempt.scope, attempt.thread_id) if attempt.number > 1 else None
    running: Draft = (running_line(run.run_id, run.graph_id, now_ms(), attempt.number), None)
    left = NOTHING_OPEN if last is None else open_after(last)
    if last is not None and (last.header.run_id == run.run_id or left != NOTHING_OPEN):
        return [*closing_lines(left), running]
    return [running, *((_responded(run.run_id, answer), None) for answer in run.answers)]


def _responded(run_id: str, answer: Answered) -> bytes:
    data = {"interrupt_id": answer.interrupt_id, "response": answer.response}
    event_id = f"{run_id}:responded:{answer.interrupt_id}"
    return encode_line("input.responded", answer.namespace, data, now_ms(), event_id)


def closing_lines(left: OpenState) -> list[Draft]:
    """Errors for the open messages, `failed` for the open subgraphs, deepest first."""
    out: list[Draft] = []
    for message in left.messages:
        data = {"event": "error", "message": LOST, "id": message.message_id, "message_id": message.message_id,
                "run_id": message.llm_run_id}  # fmt: skip
        out.append(draft("messages", message.namespace, dumps(data), now_ms(), node=message.node))
    for namespace in sorted(left.namespaces, key=len, reverse=True):
        data = {"event": "failed", "graph_name": namespace[-1].partition(":")[0], "error": LOST}
        out.append(draft("lifecycle", namespace, dumps(data), now_ms()))
    return out
