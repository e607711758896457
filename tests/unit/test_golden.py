"""Golden bytes: what the first schema version writes. A change here breaks every log that exists."""

from pathlib import Path
from typing import get_args

import msgspec

from slipstream_api.render import v2
from slipstream_api.render.outcome import Outcome
from slipstream_api.render.v1 import V1Renderer
from slipstream_nats.tail import TailRecord
from slipstream_projector.reducers import reduce
from slipstream_schemas import run_state as rs
from slipstream_schemas.channels import ChannelFilter, parse_channels
from slipstream_schemas.lines import encode_line
from slipstream_schemas.record import OpenMessage, OpenState, RecordHeader, header_value, parse_header
from slipstream_schemas.state_updates import StateUpdated, update_state
from slipstream_schemas.subjects import Scope
from slipstream_schemas.terminal import Interrupt, terminal_body
from testkit.client import ALL_CHANNELS

HEADER = '1 run-1 2 3 [[[["a:1"],"m","llm",513,"n"]],[["a:1"]]]'
LINE = (
    b'{"type":"event","method":"custom","params":{"namespace":["a:1"],"data":{"name":"p","payload":1},'
    b'"timestamp":5,"node":"n"},"event_id":"run-1:2:3:0"\t,"x":{"c":1}}'
)
TERMINAL = (
    b'{"type":"event","method":"input.requested","params":{"namespace":[],"data":{"interrupt_id":"i","payload":"ok?",'
    b'"value":"ok?"},"timestamp":7},"event_id":"run-1:input:i"\t,"x":{"n":0,"t":"task"}}\n'
    b'{"type":"event","method":"lifecycle","params":{"namespace":[],"data":{"event":"interrupted","graph_name":"g"},'
    b'"timestamp":7},"event_id":"synth:run-1:lc||interrupted"\t,"x":{"status":"success","attempt":1,"run_id":"run-1"}}'
)
STARTED = (
    b'{"name":"run_started","command_id":"c","at_ms":9,"state":{"thread_id":"t","status":"busy","running":{"run_id":"r",'
    b'"created_seq":4,"graph_id":"g","attempt":1,"holder":"h","fence":8},"fence":8},'
    b'"payload":{"run_id":"r","attempt":1,"holder":"h","fence":8}}'
)
STARTED_BEFORE_STATE_UPDATES = (
    b'{"name":"run_started","command_id":"c","at_ms":9,"state":{"thread_id":"t","status":"busy","running":{"run_id":"r",'
    b'"created_seq":4,"graph_id":"g","attempt":1,"holder":"h","fence":8}},'
    b'"payload":{"run_id":"r","attempt":1,"holder":"h","fence":8}}'
)


def test_a_line() -> None:
    written = encode_line("custom", ("a:1",), {"name": "p", "payload": 1}, 5, "run-1:2:3:0", node="n", x={"c": 1})
    assert written == LINE


def test_a_record_header() -> None:
    header = RecordHeader("run-1", 2, 3, OpenState((OpenMessage(("a:1",), "m", "llm", 513, "n"),), (("a:1",),)))
    assert header_value(header) == HEADER
    assert parse_header(HEADER) == header


def test_a_terminal_record() -> None:
    waiting = Interrupt("i", "ok?", (), "task")
    written = terminal_body(
        "run-1", "interrupted", 7, graph_name="g", run_status="success", attempt=1, interrupts=[waiting]
    )
    assert written == TERMINAL


def test_a_transition() -> None:
    state = rs.ThreadState("t", pending=(rs.PendingRun("r", 4, "g"),))
    transition = rs.start_run(state, "c", 9, rs.RunStarted("r", 1, "h", 8))
    assert rs.encode_transition(transition) == STARTED
    assert rs.decode_transition(STARTED) == transition


def test_a_transition_of_the_time_before_state_updates() -> None:
    known = rs.decode_transition(STARTED_BEFORE_STATE_UPDATES).state
    assert (known.fence, known.running) == (0, rs.decode_transition(STARTED).state.running)
    update_state(msgspec.structs.replace(known, running=None), "c", 9, StateUpdated("checkpoint", "idle", 9))


# The log of a thread to which everything happened, as the first schema version wrote it (tests/golden/record.py).

WITHOUT_ROWS = {"run_released", "run_cancel_requested"}
"""A running run that shall stop has its row changed when it ends."""
FOLDER = Path(__file__).parents[1] / "golden" / "1"
SCOPE = Scope("local")


class Stored(msgspec.Struct):
    """A message of a golden log."""

    seq: int
    at_ms: int
    header: str
    body: str


def golden(name: str) -> list[Stored]:
    return [msgspec.json.decode(line, type=Stored) for line in (FOLDER / name).read_bytes().splitlines()]


def test_every_transition_of_the_first_version_is_read_and_written_alike() -> None:
    life = golden("control.jsonl")
    for stored in life:
        transition = rs.decode_transition(stored.body.encode())
        assert transition.name == stored.header
        assert rs.encode_transition(transition).decode() == stored.body
        assert reduce(transition, SCOPE, "golden", stored.seq) or transition.name in WITHOUT_ROWS
    assert {stored.header for stored in life} | {"thread_settled"} == set(get_args(rs.TransitionName))


def test_every_record_of_the_first_version_is_read_and_rendered() -> None:
    runs: dict[str, V1Renderer] = {}
    outcomes: dict[str, Outcome] = {}
    seqs: list[int] = []
    for stored in golden("threads.jsonl"):
        header = parse_header(stored.header)
        assert header_value(header) == stored.header
        record = TailRecord(stored.seq, header, stored.body.encode(), stored.at_ms)
        for frame in v2.frames(record, ChannelFilter(parse_channels(ALL_CHANNELS))).frames.split(b"\n\n")[:-1]:
            cursor, _, body = frame.removeprefix(b"id: ").split(b"\n", 2)
            event = msgspec.json.decode(body.removeprefix(b"data: "))
            assert (event["type"], event["seq"]) == ("event", int(cursor))
            seqs.append(event["seq"])
        runs.setdefault(header.run_id, V1Renderer(header.run_id, ("values", "updates", "messages-tuple"))).feed(record)
        outcomes.setdefault(header.run_id, Outcome(header.run_id)).feed(record)
    assert seqs == sorted(set(seqs)) and len(seqs) > 250
    ended = [outcome for outcome in outcomes.values() if outcome.done]
    assert [run_id for run_id, run in runs.items() if run.done] == [outcome.run_id for outcome in ended]
    assert len(ended) == 9 and sum("__error__" in (outcome.result() or {}) for outcome in ended) == 0
    posted = [outcome.result() for outcome in outcomes.values() if not outcome.done]
    assert [values["count"] for values in posted] == [7], "the posted state"
