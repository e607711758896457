"""The pure parts of what an operator sees: trace contexts, log lines, and when nothing is recorded."""

import json
import logging
import os
import socket
import subprocess
import sys

import msgspec
import pytest

from slipstream_projector.metrics import ends_of
from slipstream_schemas import run_state as rs
from slipstream_schemas.errors import Rejected, Unavailable
from slipstream_schemas.log_lines import JsonLines, about
from slipstream_schemas.settings import settings_from_environment
from slipstream_schemas.traceparent import carried, parse_traceparent
from slipstream_telemetry.exposition import serve
from slipstream_telemetry.metrics import ProcessMetrics
from slipstream_telemetry.tracing import is_wanted

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (GOOD, GOOD),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", GOOD),
        (f"00-{TRACE}-{PARENT}-01-more", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (GOOD.upper(), ""),
        (f"{GOOD}\r\nX: y", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_trace_context_is_taken_as_the_specification_says(text: str | None, parsed: str) -> None:
    assert parse_traceparent(text) == parsed


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("slipstream.x", logging.WARNING, "x.py", 1, message, arguments, info)


def test_a_log_line_is_one_object() -> None:
    plain = json.loads(JsonLines().format(record("two\nlines of %s", "\ud800 \x00 text")))
    assert set(plain) == {"time", "level", "logger", "message"}
    assert (plain["level"], plain["logger"]) == ("warning", "slipstream.x") and plain["message"].startswith(
        "two\nlines"
    )
    assert plain["time"].endswith("+00:00")
    try:
        raise ValueError("no")
    except ValueError as failure:
        text = JsonLines().format(record("failed", error=failure))
    assert "\n" not in text and "ValueError: no" in json.loads(text)["error"]


def test_a_log_line_says_what_it_is_about() -> None:
    tokens = about.set(lambda: {"run_id": "r", "thread_id": "t", "namespace": "n"}), carried.set(GOOD)
    try:
        line = json.loads(JsonLines().format(record("x")))
    finally:
        about.reset(tokens[0])
        carried.reset(tokens[1])
    assert (line["run_id"], line["thread_id"], line["trace_id"]) == ("r", "t", TRACE) and "namespace" not in line


@pytest.mark.parametrize(("name", "value"), [("LOG_FORMAT", "yaml"), ("METRICS_PORT", "65536"), ("METRICS_PORT", "-1")])
def test_settings_are_checked(name: str, value: str) -> None:
    with pytest.raises(Rejected, match="wrong type"):
        settings_from_environment({f"SLIPSTREAM_{name}": value})


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_recorded_when_the_standard_variables_ask(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted


WITHOUT_THE_EXTRA = f"""
import sys
sys.modules["opentelemetry"] = None
from slipstream_telemetry.tracing import open_tracing
tracing = open_tracing("slipstream-test", {{"{ENDPOINT}": "http://c:4318"}})
print(tracing.is_recording, tracing.start("x", "{GOOD}").traceparent)
"""


def test_without_the_extra_traces_are_carried_and_it_is_said() -> None:
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", GOOD]
    assert "slipstream[otel]" in done.stderr


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="cannot serve metrics on"):
            serve(ProcessMetrics("test").registry, "127.0.0.1", taken.getsockname()[1])


RUNNING = rs.RunningRun("r0", 1, "g", 1, "h", 1)


def transition(name: rs.TransitionName, payload: object, running: rs.RunningRun | None = None) -> rs.Transition:
    return rs.Transition(name, "c", 1, rs.ThreadState("t", running=running), msgspec.Raw(msgspec.json.encode(payload)))


def created(strategy: rs.Strategy, *supersedes: str) -> rs.RunCreated:
    return rs.RunCreated("r9", "t", "a", "g", strategy=strategy, supersedes=supersedes)


@pytest.mark.parametrize(
    ("seen", "ends"),
    [
        (transition("run_ended", rs.RunEnded("r0", 1, "timeout", "error")), ["timeout"]),
        (transition("run_rolled_back", rs.RunRolledBack("r0")), ["rolled_back"]),
        (transition("run_cancel_requested", rs.RunCancelRequested("r1", "interrupt", ended=True)), ["interrupted"]),
        (transition("run_cancel_requested", rs.RunCancelRequested("r1", "rollback", ended=True)), ["rolled_back"]),
        (transition("run_cancel_requested", rs.RunCancelRequested("r0", "interrupt"), RUNNING), []),
        (transition("run_created", created("interrupt", "r0", "r1"), RUNNING), ["interrupted"]),
        (transition("run_created", created("rollback", "r1", "r2")), ["rolled_back", "rolled_back"]),
        (transition("run_started", rs.RunStarted("r0", 1, "h", 1)), []),
    ],
)
def test_each_end_of_a_run_is_counted_once(seen: rs.Transition, ends: list[str]) -> None:
    assert ends_of(seen) == ends
