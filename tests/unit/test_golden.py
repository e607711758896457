"""Golden bytes: what the first schema version writes. A change here breaks every log that exists."""

import msgspec

from slipstream_schemas import run_state as rs
from slipstream_schemas.lines import encode_line
from slipstream_schemas.record import OpenMessage, OpenState, RecordHeader, header_value, parse_header
from slipstream_schemas.state_updates import StateUpdated, update_state
from slipstream_schemas.terminal import Interrupt, terminal_body

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
