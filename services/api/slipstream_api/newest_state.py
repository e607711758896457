"""What the control log knows of a thread's newest state that no checkpoint holds yet: what comes next while a run goes
on (ADR 37), and which questions are answered (ADR 41).
"""

from typing import Any, Final

import msgspec

from slipstream_schemas import run_state as rs

START: Final = "__start__"
"""What LangGraph calls the step in which a graph takes its input."""
NEEDED: Final = ("next", "tasks", "metadata")
"""The fields by which to tell."""
CHANGED: Final = frozenset({"next", "tasks", "interrupts"})
"""The fields that may have to say something else than what is stored."""


class _Metadata(msgspec.Struct):
    run_id: Any = None


class _Asked(msgspec.Struct):
    id: str | None = None


class _Task(msgspec.Struct):
    name: str
    interrupts: list[_Asked] = []


class Newest(msgspec.Struct):
    """What is needed of a state."""

    next: list[str]
    tasks: list[_Task]
    metadata: _Metadata | None = None

    @property
    def asked(self) -> frozenset[str]:
        """The questions of its tasks."""
        return frozenset(each.id for task in self.tasks for each in task.interrupts if each.id is not None)


read = msgspec.json.Decoder(Newest).decode


def tells_more(fields: list[str]) -> bool:
    """Whether the control log has a say in an answer with these fields (none for all)."""
    return not fields or not CHANGED.isdisjoint(fields)


def needed(fields: list[str]) -> list[str]:
    """The fields to ask a runner for."""
    return [*dict.fromkeys([*fields, *NEEDED])] if fields else []


def next_of(thread: rs.ThreadState, newest: Newest, at_ms: int) -> list[str] | None:
    """What `next` is to say instead of nothing, while a run goes on; None to leave it."""
    if newest.next:
        return None
    running, waiting = thread.running, thread.pending
    wrote_newest = newest.metadata is not None and running is not None and newest.metadata.run_id == running.run_id
    if wrote_newest and newest.tasks:
        # All of the superstep's tasks have come to their end, and the next checkpoint is on its way.
        return [task.name for task in newest.tasks]
    if (running is not None and not wrote_newest) or (waiting and waiting[0].due_ms <= at_ms):
        return [START]
    return None


def open_in(thread: rs.ThreadState) -> frozenset[str]:
    """The questions that somebody may answer."""
    return frozenset(each.id for each in thread.interrupts)


def answered_in(thread: rs.ThreadState, newest: Newest) -> frozenset[str]:
    """The questions that nobody may answer any more, because a run that executes or waits does."""
    return newest.asked - open_in(thread) if rs.is_busy(thread) else frozenset()


def shown(
    state: bytes, fields: list[str], upcoming: list[str] | None = None, answered: frozenset[str] = frozenset()
) -> Any:
    """The fields of a state, with what comes next and without what is answered."""
    if upcoming is None and not answered and not fields:
        return msgspec.Raw(state)
    out: dict[str, Any] = msgspec.json.decode(state, type=dict[str, msgspec.Raw])
    if upcoming is not None:
        out["next"] = upcoming
    if answered:
        out["tasks"] = [
            task | {"interrupts": _without(answered, task["interrupts"])}
            for task in msgspec.json.decode(out["tasks"], type=list[dict[str, msgspec.Raw]])
        ]
    if answered and "interrupts" in out:
        out["interrupts"] = _without(answered, out["interrupts"])
    return {name: value for name, value in out.items() if name not in NEEDED or not fields or name in fields}


def _without(answered: frozenset[str], interrupts: msgspec.Raw) -> list[msgspec.Raw]:
    found = msgspec.json.decode(interrupts, type=list[msgspec.Raw])
    return [each for each in found if msgspec.json.decode(each, type=_Asked).id not in answered]
