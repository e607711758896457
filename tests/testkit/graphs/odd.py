"""A graph that says odd things: which one, and by which way, is in its input."""

import collections
import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pydantic
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

LARGE_CHARS = 9 * 1024 * 1024


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    y: float = float("nan")


class Model(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    at: datetime.datetime


class Hostile:
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _cycle() -> Any:
    found: dict[str, Any] = {}
    found["again"] = [found]
    return found


def _nested(levels: int) -> Any:
    found: Any = "bottom"
    for _ in range(levels):
        found = [found]
    return found


NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
MAKERS: dict[str, Callable[[], Any]] = {
    "nul": lambda: "a\x00b",
    "surrogate": lambda: "x\ud800y",
    "pair": lambda: "\ud83d\ude00",
    "escapes": lambda: '\\u0000 "\t\n\u2028\x7f',
    "nan": lambda: [float("nan"), float("inf"), -float("inf")],
    "numpy": lambda: {"array": np.array([[1, 2]]), "number": np.float32(1.5), "truth": np.bool_(True)},
    "bytes": lambda: b"\x00\xff",
    "model": lambda: Model(name="m", at=NOON),
    "dataclass": lambda: Point(1),
    "set": lambda: {1},
    "deque": lambda: collections.deque([1, 2]),
    "times": lambda: [NOON, NOON.date(), datetime.timedelta(seconds=90)],
    "decimal": lambda: [decimal.Decimal("1.5"), decimal.Decimal(2), decimal.Decimal("1e999"), decimal.Decimal("NaN")],
    "uuid": lambda: uuid.UUID(int=1),
    "enum": lambda: Colour.RED,
    "keys": lambda: {2: 1, 2.5: 2, None: 3, True: 4, Colour.RED: 5, uuid.UUID(int=1): 6},
    "numpy_key": lambda: {np.int64(7): 7},
    "nul_key": lambda: {"k\x00": 1},
    "large_int": lambda: [2**64, -(2**100), 10**300],
    "exception": lambda: ValueError("boom"),
    "long_key": lambda: {"k" * 100_000: 1},
    "deep": lambda: _nested(150),
    "object": lambda: object(),
    "tuple_key": lambda: {"inner": {(1, 2): 3}},
    "hostile": Hostile,
    "cycle": _cycle,
    "too_deep": lambda: _nested(600),
    "huge_int": lambda: 10**5000,
    "large": lambda: "x" * LARGE_CHARS,
}


class Odd(TypedDict, total=False):
    """What to say, where, and what was said."""

    kind: str
    way: str
    odd: Any
    messages: Annotated[list[AnyMessage], add_messages]
    done: int


def say(state: Odd) -> dict[str, Any]:
    """Say it."""
    kind = state.get("kind")
    if not kind:
        return {"done": state.get("done", 0) + 1}
    found, way = MAKERS[kind](), state.get("way", "state")
    if way == "state":
        return {"odd": {"inner": found}}
    if way == "custom":
        get_stream_writer()({"name": "odd", "inner": found})
    if way == "message":
        return {"messages": [AIMessage("said", id="m\ud800", additional_kwargs={"inner": found})]}
    if way == "content":
        return {"messages": [AIMessage(str(found), id="m1")]}
    if way == "tool":
        return {"messages": [AIMessage("", id="m1", tool_calls=[{"name": "t", "args": {"inner": found}, "id": "c"}])]}
    if way == "interrupt":
        return {"done": interrupt({"inner": found})}
    if way == "error":
        raise ValueError(found)
    return {"done": state.get("done", 0) + 1}


def after(state: Odd) -> dict[str, Any]:
    """A step behind it, so that a checkpoint lies between."""
    return {"done": state.get("done", 0) + 1}


graph = (
    StateGraph(Odd).add_node("say", say).add_node("after", after)
    .add_edge(START, "say").add_edge("say", "after").compile()
)  # fmt: skip
