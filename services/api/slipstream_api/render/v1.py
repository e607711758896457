"""Protocol v1 frames: the same lines in the modes that a caller of `runs/stream` asked for.

The stream begins with `metadata` and ends with the terminal event. Where one line becomes several frames, the
last carries the seq of the line as its id, and those before it `<seq>-<k>`: a resume repeats none and loses none.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, cast

from slipstream_api.render.chunks import as_message, full_chunk, gather
from slipstream_nats.tail import TailRecord
from slipstream_schemas.codec import dumps
from slipstream_schemas.lines import LineView, decode_line
from slipstream_schemas.seq import pack
from slipstream_schemas.state_forms import INTERRUPT, to_v1

TERMINAL: Final = frozenset({"completed", "failed", "interrupted"})

Event = tuple[str, Any]


def sse(event: str, data: Any, event_id: str) -> bytes:
    """One frame."""
    return b"event: %b\ndata: %b\nid: %b\n\n" % (event.encode(), dumps(data), event_id.encode())


class V1Renderer:
    """Renders one run's records. `done` and `status` are set by the terminal event, `error` when it failed."""

    def __init__(self, run_id: str, modes: Iterable[str], subgraphs: bool = False) -> None:
        self.run_id = run_id
        self.modes = frozenset(modes)
        self.subgraphs = subgraphs
        self.done = False
        self.needs_opening = False
        self.status: str | None = None
        self.error: dict[str, str] | None = None
        self.values: Any = None
        self.interrupts: list[dict[str, Any]] = []
        self._asked: dict[str, dict[str, Any]] = {}
        self._wants_messages = bool(self.modes & {"messages", "messages-tuple"})
        self._metadata: dict[str, Any] = {}
        self._gathered: dict[str, dict[str, Any]] = {}
        self._seen: set[str] = set()
        self._companions: dict[tuple[str, ...], Any] = {}
        self._steps: dict[tuple[str, ...], int] = {}
        self._attempt = 0

    def feed(self, record: TailRecord) -> list[bytes]:
        """The frames of a record; none for another run's."""
        if record.header.run_id != self.run_id:
            return []
        out: list[bytes] = []
        lines = record.lines
        for number in range(record.first_line, len(lines)):
            seq = pack(record.stream_seq, number)
            # A checkpoint refers to the values that follow it in the same record.
            behind = lines[number + 1] if number + 1 < len(lines) else b""
            events = self._events(decode_line(lines[number]), behind)
            last = len(events) - 1
            out.extend(
                sse(name, data, str(seq) if k == last else f"{seq}-{k + 1}") for k, (name, data) in enumerate(events)
            )
        return out

    def deleted(self) -> bytes:
        """The last frame of a run whose thread was deleted before it ended."""
        self.error = {"error": "NotFound", "message": "The thread was deleted."}
        return b"event: error\ndata: %b\n\n" % dumps(self.error)

    def learn(self, line: bytes) -> None:
        """Take in a message-start that lies before the point where the stream begins."""
        view = decode_line(line)
        if view.method == "messages" and view.x:
            self._metadata[view.data["message_id"]] = view.x.get("m", {})

    def _events(self, view: LineView, behind: bytes) -> list[Event]:
        if view.method == "lifecycle":
            return self._lifecycle(view)
        if view.method == "input.requested":
            self.interrupts.append({"value": view.data["value"], "id": view.data["interrupt_id"]})
            return []
        if view.namespace and not self.subgraphs and view.method != "messages":
            return []
        name = "|".join((view.method, *view.namespace)) if self.subgraphs else view.method
        match view.method:
            case "values":
                return self._values(view, name)
            case "updates":
                return self._updates(view, name)
            case "messages":
                return self._messages(view)
            case "custom":
                return [(name, view.data["payload"])] if "custom" in self.modes and not view.x else []
            case "events":
                return [("events", view.data)] if "events" in self.modes else []
            case "tasks":
                return self._task(view, name)
            case "checkpoints":
                return self._checkpoint(view, name, behind)
            case _:
                return []

    def _lifecycle(self, view: LineView) -> list[Event]:
        if view.namespace:
            return []
        if view.data["event"] == "running":
            self._attempt = view.x["attempt"]
            return [("metadata", {"run_id": self.run_id, "attempt": self._attempt})]
        if view.data["event"] not in TERMINAL:
            return []
        self.done, self.status = True, view.x.get("status")
        self.error = view.x.get("error")
        return [("error", self.error)] if self.error else []

    def _values(self, view: LineView, name: str) -> list[Event]:
        value = to_v1(view.data, (view.x or {}).get("p"))
        if not view.namespace:
            self.values = value
            if isinstance(value, dict):
                self._asked.update({each["id"]: each for each in cast("Any", value).get(INTERRUPT, ())})
        return [(name, value)] if "values" in self.modes else []

    def _updates(self, view: LineView, name: str) -> list[Event]:
        if view.kind == "x":
            if "updates" in self.modes:
                return [(name, view.data)]
            # Who follows messages alone still learns that the run waits for an answer.
            shown = self.modes and "values" not in self.modes and INTERRUPT in view.data
            return [("|".join(("values", *view.namespace)) if self.subgraphs else "values", view.data)] if shown else []
        if "updates" not in self.modes:
            return []
        x = view.x or {}
        update = None if x.get("n") else to_v1(view.data["values"], x.get("p"))
        return [(name, {view.data["node"]: update})]

    # Tasks, checkpoints, debug

    def _task(self, view: LineView, name: str) -> list[Event]:
        payload = to_v1(view.data, (view.x or {}).get("p"))
        out: list[Event] = [(name, payload)] if "tasks" in self.modes else []
        if "debug" in self.modes:
            kind = "task" if "triggers" in payload else "task_result"
            out.append(self._debug(view, self._steps.get(view.namespace, -1) + 1, kind, payload))
        return out

    def _checkpoint(self, view: LineView, name: str, behind: bytes) -> list[Event]:
        self._steps[view.namespace] = view.data.get("step") or 0
        if not self.modes & {"checkpoints", "debug"}:
            return []
        x = view.x
        if x.get("v"):
            companion = decode_line(behind)
            values = to_v1(companion.data, (companion.x or {}).get("p"))
            if isinstance(values, dict):
                values.pop(INTERRUPT, None)  # pyright: ignore[reportUnknownMemberType]
        else:
            values = x["values"]["is"]
        kept = x["c"]
        payload = {"config": kept["config"], "parent_config": kept["parent_config"], "values": values,
                   "metadata": kept["metadata"], "next": kept["next"], "tasks": kept["tasks"]}  # fmt: skip
        out: list[Event] = [(name, payload)] if "checkpoints" in self.modes else []
        if "debug" in self.modes:
            out.append(self._debug(view, self._steps[view.namespace], "checkpoint", payload))
        return out

    def _debug(self, view: LineView, step: int, kind: str, payload: Any) -> Event:
        moment = datetime.fromtimestamp(view.timestamp_ms / 1000, UTC).isoformat()
        name = "|".join(("debug", *view.namespace)) if self.subgraphs else "debug"
        return name, {"step": step, "timestamp": moment, "type": kind, "payload": payload}

    # Messages

    def _messages(self, view: LineView) -> list[Event]:
        x, message_id = view.x or {}, view.data["message_id"]
        if "m" in x and "w" not in x:
            self._metadata[message_id] = x["m"]
        if not self._wants_messages or (view.namespace and not self.subgraphs and "messages-tuple" in self.modes):
            return []
        if "w" in x:
            return self._whole(view, x)
        if "c" not in x:
            return []
        sparse = {"content": view.data["delta"]["text"]} if x["c"] == 1 else x["c"]
        chunk = full_chunk(sparse, message_id)
        metadata = self._metadata.get(message_id, {})
        if "messages-tuple" in self.modes:
            return [("|".join(("messages", *view.namespace)) if self.subgraphs else "messages", [chunk, metadata])]
        out: list[Event] = []
        if message_id not in self._seen:
            self._seen.add(message_id)
            out.append(("messages/metadata", {message_id: {"metadata": metadata}}))
        gathered = self._gathered[message_id] = gather(self._gathered.get(message_id), chunk)
        return [*out, ("messages/partial", [as_message(gathered)])]

    def _whole(self, view: LineView, x: dict[str, Any]) -> list[Event]:
        message, metadata, message_id = x["w"], x["m"], view.data["message_id"]
        if "messages-tuple" in self.modes:
            return [("|".join(("messages", *view.namespace)) if self.subgraphs else "messages", [message, metadata])]
        return [
            ("messages/metadata", {message_id: {"metadata": metadata}}),
            ("messages/complete", [message]),
        ]

    def result(self) -> Any:
        """What `wait` and `join` answer."""
        if self.error is not None:
            return {"__error__": self.error}
        if not self.interrupts:
            return self.values
        # Each of several parallel questions came in values of its own, so the last values hold one of them.
        asked = [self._asked.get(each["id"], {**each, "response_schema": None}) for each in self.interrupts]
        return {**(self.values if isinstance(self.values, dict) else {}), INTERRUPT: asked}
