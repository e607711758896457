"""Protocol v1 frames: the same lines in the modes that a caller of `runs/stream` asked for.

The stream begins with `metadata` and ends with the terminal event. Where one line becomes several frames, the
last carries the seq of the line as its id, and those before it `<seq>-<k>`: a resume repeats none and loses none.

In most modes the frames of a record follow from the record and from the metadata of the messages that are open at its
start, which every stream knows, because it has seen them begin or has learned them. So streams that ask for the same
share what is rendered, from wherever they began. What a record says of messages that it opens is kept with its frames:
a stream that took them renders the next record itself where it has to. The modes of `UNSHARED` depend on where a stream
began.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from slipstream_api.render.chunks import as_message, full_chunk, gather
from slipstream_api.render.shared import Rendered, keep, kept
from slipstream_nats.tail import TailRecord
from slipstream_schemas.codec import dumps
from slipstream_schemas.lines import LineView, decode_line
from slipstream_schemas.seq import pack
from slipstream_schemas.state_forms import INTERRUPT, to_v1

TERMINAL: Final = frozenset({"completed", "failed", "interrupted"})
DELETED: Final = {"error": "NotFound", "message": "The thread was deleted."}
UNSHARED: Final = frozenset({"messages", "debug"})
"""`messages` sends a message as far as the stream has seen it; `debug` counts the steps that the stream has seen."""

Event = tuple[str, Any]
Call = tuple[str, str]
"""A message id, and the model call that the message is of: providers' ids may repeat."""


def sse(event: str, data: Any, event_id: str) -> bytes:
    """One frame."""
    return b"event: %b\ndata: %b\nid: %b\n\n" % (event.encode(), dumps(data), event_id.encode())


class _Run(Rendered, frozen=True):
    """What a record means for the streams of its run."""

    opened: dict[Call, dict[str, Any]]
    """The metadata of the messages that begin in it."""
    done: bool


class V1Renderer:
    """Renders one run's records. `done` is set by the terminal event.

    `known` is `(seq, part)`, the first parts of a line that the client has already.
    """

    def __init__(
        self, run_id: str, modes: Iterable[str], subgraphs: bool = False, known: tuple[int, int] | None = None
    ) -> None:
        self.run_id = run_id
        self.modes = frozenset(modes)
        self.subgraphs = subgraphs
        self.known = known
        self.done = False
        self.needs_opening = False
        self._asked = ("v1", self.modes, subgraphs)
        self._shares = not self.modes & UNSHARED
        self._wants_messages = bool(self.modes & {"messages", "messages-tuple"})
        self._metadata: dict[Call, dict[str, Any]] = {}
        self._opened: dict[Call, dict[str, Any]] = {}
        self._gathered: dict[str, dict[str, Any]] = {}
        self._seen: set[str] = set()
        self._steps: dict[tuple[str, ...], int] = {}

    def feed(self, record: TailRecord) -> bytes:
        """The frames of a record; none for another run's."""
        if record.header.run_id != self.run_id:
            return b""
        is_known_in_part = self.known is not None and self.known[0] >> 8 == record.stream_seq
        if not self._shares or record.first_line or is_known_in_part:
            return self._render(record).frames
        known: _Run | None = kept(record, self._asked)
        if known is None:
            known = self._render(record)
            if self._shares:
                keep(record, self._asked, known)
            return known.frames
        self._metadata.update(known.opened)
        self.done = known.done
        return known.frames

    def _render(self, record: TailRecord) -> _Run:
        out: list[bytes] = []
        self._opened = {}
        lines = record.lines
        # Lines that the client has are taken in too: what follows depends on them.
        for number in range(len(lines)):
            seq = pack(record.stream_seq, number)
            # A checkpoint refers to the values that follow it in the same record.
            behind = lines[number + 1] if number + 1 < len(lines) else b""
            events = self._events(decode_line(lines[number]), behind)
            if number < record.first_line:
                continue
            known = self.known[1] if self.known is not None and self.known[0] == seq else 0
            last = len(events) - 1
            out.extend(
                sse(name, data, str(seq) if k == last else f"{seq}-{k + 1}")
                for k, (name, data) in enumerate(events)
                if k == last or k >= known
            )
        return _Run(b"".join(out), len(out), self._opened, self.done)

    def deleted(self) -> bytes:
        """The last frame of a run whose thread was deleted before it ended."""
        return b"event: error\ndata: %b\n\n" % dumps(DELETED)

    def learn(self, line: bytes) -> None:
        """Take in a message-start that lies before the point where the stream begins."""
        view = decode_line(line)
        if view.method == "messages" and view.x:
            self._metadata[_call_of(view)] = view.x.get("m", {})

    def _events(self, view: LineView, behind: bytes) -> list[Event]:
        if view.method == "lifecycle":
            return self._lifecycle(view)
        if view.namespace and not self.subgraphs and view.method != "messages":
            return []
        name = "|".join((view.method, *view.namespace)) if self.subgraphs else view.method
        match view.method:
            case "values":
                return [(name, to_v1(view.data, (view.x or {}).get("p")))] if "values" in self.modes else []
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
            return [("metadata", {"run_id": self.run_id, "attempt": view.x["attempt"]})]
        if view.data["event"] not in TERMINAL:
            return []
        self.done = True
        error = view.x.get("error")
        return [("error", error)] if error else []

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
        metadata = {"__metadata__": x["d"]} if x.get("d") else {}
        return [(name, {view.data["node"]: update, **metadata})]

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
        said = x["c"]
        payload = {"config": said["config"], "parent_config": said["parent_config"], "values": values,
                   "metadata": said["metadata"], "next": said["next"], "tasks": said["tasks"]}  # fmt: skip
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
        x, message_id, call = view.x or {}, view.data["message_id"], _call_of(view)
        if "m" in x and "w" not in x:
            self._metadata[call] = self._opened[call] = x["m"]
        if not self._wants_messages or (view.namespace and not self.subgraphs and "messages-tuple" in self.modes):
            return []
        if "w" in x:
            return self._whole(view, x)
        if "c" not in x:
            return []
        sparse = {"content": view.data["delta"]["text"]} if x["c"] == 1 else x["c"]
        chunk = full_chunk(sparse, message_id)
        metadata = self._metadata.get(call)
        if metadata is None:
            # Its start was purged before this stream began: others may know what it said.
            self._shares, metadata = False, {}
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


def _call_of(view: LineView) -> Call:
    return view.data["message_id"], view.data.get("run_id", "")
