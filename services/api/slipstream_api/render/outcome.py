"""What a run comes to: the answer of `wait` and `join`, of a tool and of a task."""

from typing import Any, Final, cast

from slipstream_api.render.v1 import DELETED, TERMINAL
from slipstream_nats.tail import TailRecord
from slipstream_schemas import lines
from slipstream_schemas.state_forms import INTERRUPT, to_v1

_TOLD_BY: Final = frozenset({"lifecycle", "values", "input.requested"})


class Outcome:
    """Follows one run's records to its terminal event, or the end of its thread, which set `done`."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.done = False
        self.status: str | None = None
        """Of the run, once it is over."""
        self.error: dict[str, str] | None = None
        self.values: Any = None
        self.interrupts: list[dict[str, Any]] = []
        self._asked: dict[str, dict[str, Any]] = {}

    def feed(self, record: TailRecord) -> None:
        """Take in a record; nothing of another run's. Raises: Corrupt."""
        if record.is_erasure:
            self.done, self.error = True, DELETED
        if record.header.run_id != self.run_id:
            return
        for line in record.lines[record.first_line :]:
            # Most lines of a run are its messages, and need not be decoded.
            found = lines.decode_prefix(lines.prefix(line))
            if found.method in _TOLD_BY and (not found.namespace or found.method == "input.requested"):
                self._take(lines.decode_line(line))

    def _take(self, view: lines.LineView) -> None:
        if view.method == "input.requested":
            self.interrupts.append({"value": view.data["value"], "id": view.data["interrupt_id"]})
        elif view.method == "values":
            self.values = value = to_v1(view.data, (view.x or {}).get("p"))
            if isinstance(value, dict):
                self._asked.update({each["id"]: each for each in cast("Any", value).get(INTERRUPT, ())})
        elif view.data["event"] in TERMINAL:
            self.done, self.status = True, view.x["status"]
            self.error = view.x.get("error")

    def result(self) -> Any:
        """The final values, with the questions that the run asks, or its error. A run that ended before it had any
        values has an empty object: the JavaScript SDK looks for a key in what it gets.
        """
        if self.error is not None:
            return {"__error__": self.error}
        if not self.interrupts:
            return {} if self.values is None else self.values
        # Each of several parallel questions came in values of its own, so the last values hold one of them.
        asked = [self._asked.get(each["id"], {**each, "response_schema": None}) for each in self.interrupts]
        return {**(self.values if isinstance(self.values, dict) else {}), INTERRUPT: asked}
