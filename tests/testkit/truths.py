"""What must hold of the events of a run, whatever its graph: each check names what it found wrong."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Namespace = tuple[str, ...]
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b|call_[0-9a-f]+")
CLOSED = frozenset({"completed", "failed", "interrupted"})


def masked(value: Any) -> str:
    """As JSON without the ids that differ from one execution to the next."""
    return ID.sub("*", json.dumps(value, sort_keys=True))


class Event(NamedTuple):
    """One event of protocol v2: method, namespace, data."""

    method: str
    namespace: Namespace
    data: Any


def check_subgraphs(events: Sequence[Event]) -> None:
    """Each subgraph begins before anything of it, below a parent that is open, and closes once, behind its children."""
    opened: list[Namespace] = []
    for event in events:
        namespace = event.namespace
        if event.method != "lifecycle" or not namespace:
            assert not namespace or namespace in opened, f"outside of a started subgraph: {event}"
            continue
        if event.data["event"] == "started":
            assert namespace not in opened, f"started twice: {event}"
            assert len(namespace) == 1 or namespace[:-1] in opened, f"started without its parent: {event}"
            opened.append(namespace)
        else:
            assert event.data["event"] in CLOSED, event
            assert namespace in opened, f"closed and not open: {event}"
            opened.remove(namespace)
            below = [each for each in opened if each[: len(namespace)] == namespace]
            assert not below, f"closed before its children {below}: {event}"
    assert not opened, f"never closed: {opened}"


class _Message:
    """A message in the making."""

    def __init__(self) -> None:
        self.blocks: list[Any] = []
        self.texts: dict[int, str] = defaultdict(str)
        self.finished: dict[int, Any] = {}


def check_messages(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Messages begin, grow and finish in order. Gives the blocks of each, those of one id one after another."""
    made: dict[tuple[Namespace, str], _Message] = {}
    out: dict[str, list[Any]] = defaultdict(list)
    for event in events:
        if event.method != "messages":
            continue
        data = event.data
        key = (event.namespace, data["run_id"])
        if data["event"] == "message-start":
            assert key not in made, f"begun twice: {event}"
            made[key] = _Message()
            continue
        assert key in made, f"not begun: {event}"
        found = made[key]
        match data["event"]:
            case "content-block-start":
                assert data["index"] == len(found.blocks), f"not the next block: {event}"
                found.blocks.append(data["content"])
            case "content-block-delta":
                assert data["index"] < len(found.blocks) and data["index"] not in found.finished, event
                change = data["delta"]
                known = {"text-delta": "text", "reasoning-delta": "reasoning", "tool-call-delta": "args"}
                found.texts[data["index"]] += change[known[change["type"]]] if change["type"] in known else ""
            case "content-block-finish":
                assert data["index"] < len(found.blocks) and data["index"] not in found.finished, event
                found.finished[data["index"]] = data["content"]
                _check_block(found.texts[data["index"]], data["content"], event)
            case "message-finish":
                assert len(found.finished) == len(found.blocks), f"finished with open blocks: {event}"
                out[data["message_id"]].append([found.finished[n] for n in range(len(found.blocks))])
                del made[key]
            case "error":
                del made[key]
            case _:
                raise AssertionError(f"unknown: {event}")
    assert not made, f"never finished: {list(made)}"
    return out


def _check_block(text: str, content: Any, event: Event) -> None:
    match content["type"]:
        case "text" | "reasoning":
            assert content[content["type"]] == text, f"deltas {text!r}: {event}"
        case "tool_call":
            assert not text or json.loads(text) == content["args"], f"deltas {text!r}: {event}"
        case "invalid_tool_call":
            assert content["args"] == (text or "{}"), f"deltas {text!r}: {event}"
        case _:
            pass


def check_checkpoints(events: Sequence[Event], known: set[str]) -> None:
    """Checkpoints are light and unique, and their parents are known: from `known`, if not from here.

    A run that goes on tells once more where it goes on.
    """
    here: set[str] = set()
    for event in events:
        if event.method == "checkpoints":
            assert set(event.data) <= {"id", "parent_id", "step", "source"}, event
            # A subgraph goes on inside of a run too: one that keeps its state, or whose node is tried again.
            assert event.namespace or event.data["id"] not in here, f"twice: {event}"
            here.add(event.data["id"])
            known.add(event.data["id"])
            parent = event.data.get("parent_id")
            # Subgraphs that were stopped before they could tell a checkpoint may go on from it.
            assert event.namespace or parent is None or parent in known, f"unknown parent: {event}"


def is_shared(namespace: Namespace) -> bool:
    """Subgraphs that keep their state have no task in their namespace: parallel ones are one to LangGraph."""
    return any(":" not in segment and not segment.isdecimal() for segment in namespace)


def check_companions(events: Sequence[Event], parts: Sequence[tuple[Namespace, str, Any]]) -> None:
    """A state that LangGraph tells together with its checkpoint comes right behind it."""
    behind = {
        each.data["id"]: after for each, after in zip(events, [*events[1:], None], strict=True)
        if each.method == "checkpoints"
    }  # fmt: skip
    told = [part for part in parts if part[1] in ("values", "checkpoints")]
    for (before, first, _), (namespace, second, payload) in pairwise(told):
        if (first, second) == ("values", "checkpoints") and before == namespace and not is_shared(namespace):
            event = behind[payload["config"]["configurable"]["checkpoint_id"]]
            assert event is not None and event[:2] == ("values", namespace), f"behind a checkpoint: {event}"


def check_tools(events: Sequence[Event], *, is_whole: bool) -> None:
    """Tools start and end in pairs."""
    running: set[tuple[Namespace, str]] = set()
    for event in events:
        if event.method != "tools" or is_shared(event.namespace):
            continue
        key = (event.namespace, event.data["tool_call_id"])
        if event.data["event"] == "tool-started":
            assert key not in running, event
            running.add(key)
            continue
        assert key in running, f"not started: {event}"
        if event.data["event"] in ("tool-finished", "tool-error"):
            running.remove(key)
    assert not is_whole or not running, f"never ended: {running}"


def check_tasks(events: Sequence[Event]) -> None:
    """A task's result comes behind its start; each task ends at most once."""
    begun: set[str] = set()
    ended: set[str] = set()
    for event in events:
        if event.method == "tasks" and not is_shared(event.namespace):
            if "triggers" in event.data:
                begun.add(event.data["id"])
            else:
                assert event.data["id"] in begun, f"not begun: {event}"
                assert event.data["id"] not in ended, f"ended twice: {event}"
                ended.add(event.data["id"])
