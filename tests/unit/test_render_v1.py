"""Streams of protocol v1 that share what is rendered get what each would have rendered alone, wherever they begin."""

from collections.abc import Sequence

import msgspec
import pytest

from slipstream_api.render.v1 import V1Renderer
from slipstream_nats.tail import TailRecord
from slipstream_schemas.lines import encode_line
from slipstream_schemas.record import RecordHeader

METADATA = {"langgraph_node": "say"}
START = encode_line("messages", (), {"event": "message-start", "message_id": "m"}, 1, "e", x={"m": METADATA})
MODES = (["messages-tuple"], ["messages-tuple", "values", "custom"], ["messages"], ["tasks", "debug"])


def said(text: str) -> bytes:
    """A line with a chunk of the message."""
    data = {"event": "content-block-delta", "delta": {"text": text}, "message_id": "m"}
    return encode_line("messages", (), data, 1, "e", x={"c": 1})


def lifecycle(event: str, **x: object) -> bytes:
    """A line of the run's life."""
    return encode_line("lifecycle", (), {"event": event}, 1, "e", x=x)


TASK = encode_line("tasks", (), {"id": "t", "name": "say", "triggers": []}, 1, "e")
RECORDS = (
    [lifecycle("running", attempt=1), TASK, START],
    [said("a"), said("b"), encode_line("custom", (), {"payload": 1}, 1, "e")],
    [said("c")],
    [encode_line("values", (), {"n": 1}, 1, "e"), lifecycle("completed")],
)


def log() -> list[TailRecord]:
    """The run's records, which nobody has read."""
    return [TailRecord(n, RecordHeader("r", 1, n), b"\n".join(RECORDS[n - 1])) for n in range(1, len(RECORDS) + 1)]


def read(records: Sequence[TailRecord], modes: list[str], learned: bool = False) -> list[bytes]:
    """What a new stream gets of each record."""
    renderer = V1Renderer("r", modes)
    if learned:
        renderer.learn(START)
    out = [renderer.feed(record) for record in records]
    assert renderer.done
    return out


@pytest.mark.parametrize("modes", MODES, ids=str)
def test_streams_share_from_wherever_they_begin(modes: list[str]) -> None:
    shared = log()
    whole = read(shared, modes)
    assert whole == read(log(), modes)
    for first in range(1, len(shared)):
        # Whether the one that began earlier rendered first, or the one that joined.
        assert read(shared[first:], modes, learned=True) == read(log()[first:], modes, learned=True)
        fresh = log()
        joined = read(fresh[first:], modes, learned=True)
        assert read(fresh, modes) == whole
        if "messages-tuple" in modes:
            assert joined == whole[first:]


def test_a_stream_that_took_shared_frames_goes_on_alone() -> None:
    modes = ["messages-tuple"]
    shared, renderer = log(), V1Renderer("r", modes)
    whole = read(shared, modes)
    # It fell behind after the message began: what it reads now are records of its own.
    assert [renderer.feed(record) for record in (*shared[:2], *log()[2:])] == whole


def test_a_stream_that_begins_inside_a_record_knows_what_began_there() -> None:
    record = TailRecord(1, RecordHeader("r", 1, 1), b"\n".join([START, said("a"), said("b")]))
    whole = V1Renderer("r", ["messages-tuple"]).feed(record)
    rest = V1Renderer("r", ["messages-tuple"]).feed(msgspec.structs.replace(record, first_line=2))
    assert b'"langgraph_node":"say"' in rest
    assert whole.endswith(rest)
    assert rest.count(b"\n\n") == 1


def test_a_stream_without_what_a_message_began_with_keeps_its_frames_to_itself() -> None:
    shared = log()
    lacking = V1Renderer("r", ["messages-tuple"])
    assert b"langgraph_node" not in lacking.feed(shared[1])
    assert read(shared, ["messages-tuple"]) == read(log(), ["messages-tuple"])


def test_known_parts_of_a_line_are_left_out() -> None:
    record = TailRecord(1, RecordHeader("r", 1, 1), TASK)
    modes = ["tasks", "debug"]
    first, second = V1Renderer("r", modes).feed(record).split(b"\n\n")[:-1]
    assert (first.endswith(b"id: 256-1"), second.endswith(b"id: 256")) == (True, True)
    assert V1Renderer("r", modes, known=(256, 1)).feed(record) == second + b"\n\n"
