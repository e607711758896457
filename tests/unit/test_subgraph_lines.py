"""What is told of subgraphs: whose they are, and why they failed."""

from typing import Any

from slipstream_runner.translate import LlmRuns, Translator, assemble
from slipstream_schemas.lines import LineView, decode_line

CALLED = {"id": "t1", "name": "twice", "input": {}, "triggers": ["x"]}
INSIDE = {"id": "t2", "name": "leaf", "input": {}, "triggers": ["x"]}
OUTER = ("twice:t1",)


class DriverError(Exception):
    """Its text may hold what nobody shall see."""


def lines_of(*parts: tuple[tuple[str, ...], str, Any]) -> list[LineView]:
    translator = Translator(1, LlmRuns())
    for namespace, mode, payload in parts:
        translator.feed(namespace, mode, payload, 1)
    translator.finish("completed", None, 2)
    return [decode_line(line) for line in assemble(translator.drain()[0], "r", 1, 1).split(b"\n")]


def test_a_second_call_in_one_task_is_told_as_the_first() -> None:
    lines = lines_of(((), "tasks", CALLED), (OUTER, "tasks", INSIDE), ((*OUTER, "1"), "tasks", INSIDE))
    started = [
        (line.namespace, line.data) for line in lines if line.method == "lifecycle" and line.data["event"] == "started"
    ]
    told = {"event": "started", "graph_name": "twice", "trigger_call_id": "t1"}
    assert started == [(OUTER, told), ((*OUTER, "1"), told)]


def test_a_subgraph_without_a_task_is_told_too() -> None:
    ended: dict[str, Any] = {"id": "t1", "name": "twice", "error": None, "result": {}, "interrupts": []}
    lines = lines_of(((), "tasks", CALLED), (OUTER, "values", {"n": 1}), ((), "tasks", ended))
    below = [(line.method, line.data.get("event", line.data)) for line in lines if line.namespace]
    assert below == [("lifecycle", "started"), ("values", {"n": 1}), ("lifecycle", "completed")]
    unfinished = lines_of(((), "tasks", CALLED), (OUTER, "values", {"n": 1}))
    assert [line.method for line in unfinished if line.namespace] == ["lifecycle", "values", "lifecycle"]


def test_the_text_of_a_driver_stays_inside() -> None:
    failed = {"id": "t1", "name": "twice", "error": DriverError("secret"), "result": {}, "interrupts": []}
    lines = lines_of(((), "tasks", CALLED), (OUTER, "tasks", INSIDE), ((), "tasks", failed))
    told = {"error": "DriverError", "message": "An internal error occurred"}
    assert [line.data["error"] for line in lines if line.method == "tasks" and "error" in line.data] == [told]
    failures = [line.data for line in lines if line.method == "lifecycle" and line.data["event"] == "failed"]
    assert [data["error"] for data in failures] == ["DriverError: An internal error occurred"]
    assert not any("secret" in str(line) for line in lines)
    plain = {**failed, "error": ValueError("boom")}
    failures = [line.data for line in lines_of((OUTER, "tasks", INSIDE), ((), "tasks", plain)) if "error" in line.data]
    assert failures[0]["error"] == "ValueError: boom"
