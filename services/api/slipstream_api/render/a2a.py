"""What the Agent2Agent protocol shows of a run: a task, its states, and what it says while it works. Pure.

Source: the specification of A2A 0.3, sections 6.1 to 7.2.
"""

from collections.abc import Iterable
from typing import Any, Final

from slipstream_api.render.outcome import Outcome
from slipstream_nats.tail import TailRecord
from slipstream_schemas.codec import dumps
from slipstream_schemas.lines import decode_line
from slipstream_schemas.state_forms import INTERRUPT

STATES: Final = {
    "pending": "submitted", "running": "working", "success": "completed", "error": "failed", "timeout": "failed",
    "interrupted": "canceled",
}  # fmt: skip
"""Of a task, by the status of its run; one that asks something is `input-required`."""
Json = dict[str, Any]


class TaskView:
    """A run as a task: its id is the run's, its context the thread."""

    def __init__(self, run: Outcome, thread_id: str) -> None:
        self.run, self._thread_id = run, thread_id

    def task(self, status: str | None = None) -> Json:
        """The task, as the log that was fed tells it, or in a status of the run."""
        artifacts = {"artifacts": [self._artifact()]} if self._has_result else {}
        return {"kind": "task", "id": self.run.run_id, "contextId": self._thread_id, "status": self._status(status),
                **artifacts}  # fmt: skip

    def feed(self, record: TailRecord) -> list[Json]:
        """What a record adds: the words of messages as they come, and at the end the result."""
        said = _texts(record) if record.header.run_id == self.run.run_id else ()
        out = [self._update(self._working(each)) for each in said]
        self.run.feed(record)
        if self.run.done:
            if self._has_result:
                out.append({"kind": "artifact-update", **self._ids, "artifact": self._artifact(), "lastChunk": True})
            out.append({**self._update(self._status()), "final": True})
        return out

    @property
    def _ids(self) -> Json:
        return {"taskId": self.run.run_id, "contextId": self._thread_id}

    @property
    def _has_result(self) -> bool:
        return self.run.done and self.run.status == "success" and not self.run.interrupts

    def _update(self, status: Json) -> Json:
        return {"kind": "status-update", **self._ids, "status": status, "final": False}

    def _working(self, said: tuple[str, str]) -> Json:
        message_id, text = said
        return {"state": "working", "message": self._message(message_id, [_text(text)])}

    def _status(self, status: str | None = None) -> Json:
        if not self.run.done:
            return {"state": STATES[status or "pending"]}
        if self.run.error is not None:
            said = [_text(f"{self.run.error['error']}: {self.run.error['message']}")]
            return {"state": STATES["error"], "message": self._message("error", said)}
        if self.run.interrupts:
            said = [{"kind": "data", "data": {INTERRUPT: self.run.interrupts}}]
            return {"state": "input-required", "message": self._message("question", said)}
        return {"state": STATES[self.run.status or "success"]}

    def _message(self, message_id: str, parts: list[Json]) -> Json:
        return {"kind": "message", "role": "agent", "messageId": f"{self.run.run_id}:{message_id}", **self._ids,
                "parts": parts}  # fmt: skip

    def _artifact(self) -> Json:
        """The last message where the state has messages, else the whole state."""
        values = self.run.values
        messages: Any = values.get("messages") if isinstance(values, dict) else None
        last: Any = messages[-1] if isinstance(messages, list) and messages else None  # pyright: ignore[reportUnknownArgumentType]
        words = _words(last.get("content")) if isinstance(last, dict) else ""  # pyright: ignore[reportUnknownMemberType]
        data: Json = values if isinstance(values, dict) else {"values": values}
        return {"artifactId": self.run.run_id, "name": "result",
                "parts": [_text(words) if words else {"kind": "data", "data": data}]}  # fmt: skip


def _text(text: str) -> Json:
    return {"kind": "text", "text": text}


def _words(content: object) -> str:
    """The text of a message's content, which may be in blocks."""
    if isinstance(content, str):
        return content
    blocks: Any = content if isinstance(content, list) else []
    return "".join(block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str))


def _texts(record: TailRecord) -> Iterable[tuple[str, str]]:
    """The slices of text that root messages add, with the ids of the messages."""
    for raw in record.lines[record.first_line :]:
        line = decode_line(raw)
        if line.method != "messages" or line.namespace or line.data.get("event") != "content-block-delta":
            continue
        delta = line.data["delta"]
        if delta.get("type") == "text-delta" and delta["text"]:
            yield str(line.data["message_id"]), delta["text"]


def frame(call_id: Any, event: Json) -> bytes:
    """An event of a stream: an answer to the call that opened it."""
    return b"data: %b\n\n" % dumps({"jsonrpc": "2.0", "id": call_id, "result": event})
