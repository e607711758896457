"""Schemathesis against our OpenAPI: each operation answers as described, whatever it is asked, and never with a bug.

Documented statuses and content types alone, bodies that conform to their schemas, no 5xx but a 503 that says when to
try again. `API_EXAMPLES` is how many requests each operation is asked.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from slipstream_api.openapi import DOCUMENT
from testkit.client import new_thread
from testkit.servers import NatsServer, fresh_database
from testkit.stack import Stack

EXAMPLES: Final = int(os.environ.get("API_EXAMPLES", "12"))
CONFIG: Final = schemathesis.Config.from_dict(
    {"generation": {"database": "none"}, "phases": {"examples": {"enabled": False}, "coverage": {"enabled": False}}}
)
SCHEMA: Final = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
CHECKS: Final = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
Case = schemathesis.Case[Any]
UNHURRIED: Final = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
UNAVAILABLE: Final = 503
DEADLINE_S: Final = 30.0
KNOWN: Final = {
    "thread_id": new_thread(), "run_id": "", "assistant_id": "counter", "checkpoint_id": "", "cron_id": "",
    "graph_id": "counter", "schedule": "0 0 1 1 *",
}  # fmt: skip
"""Ids of what is there, and a word or two that make sense; half of the requests name these."""
RUN: Final[dict[str, Any]] = {"assistant_id": "counter", "input": {"steps": 1, "delay_s": 0}}
CHOICES: Final = frozenset({
    "stream_mode", "multitask_strategy", "if_not_exists", "if_exists", "on_disconnect", "on_completion", "durability",
    "sort_by", "sort_order", "select", "status", "webhook", "timezone", "end_time", "on_run_completed",
})  # fmt: skip
"""One of a few words is wanted, which nobody guesses."""
FOR_LATER: Final = "after_seconds"
"""Whoever waits for such a run waits for long."""


def _is_meant(value: object) -> bool:
    return len(str(value)) % 2 == 0


@SCHEMA.hook
def map_case(context: schemathesis.HookContext, case: Case) -> Case:
    """Half of what is generated names things that are there, so that more is asked than what is not found."""
    if case.method != "DELETE" and _is_meant(case.path_parameters):
        case.path_parameters = {name: KNOWN.get(name, value) for name, value in (case.path_parameters or {}).items()}
    named = [case.body] if isinstance(case.body, dict) else case.body if isinstance(case.body, list) else []
    for body in named:
        if isinstance(body, dict) and "thread_ids" not in body and _is_meant(body):
            for name in CHOICES & body.keys():
                del body[name]
            named_here = ("thread_id", "assistant_id", "graph_id", "schedule")
            body.update({name: KNOWN[name] for name in named_here if name in body})
            if "assistant_id" in body and "input" in body:
                body["input"] = RUN["input"]
        if isinstance(body, dict):
            body.pop(FOR_LATER, None)
    return case


@pytest.fixture(scope="module")
def server(
    nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, requests.Session]]:
    """A stack of its own, since the requests delete what they find."""
    root = tmp_path_factory.mktemp("described")
    with fresh_database(postgres_dsn) as dsn, Stack(nats_server.url, dsn, "described", root) as stack:
        stack.prepare()
        stack.start()
        with requests.Session() as session:

            def made(path: str, body: dict[str, Any]) -> dict[str, Any]:
                answer = session.post(stack.url + path, json=body, timeout=DEADLINE_S)
                answer.raise_for_status()
                return dict(answer.json())

            thread = f"/threads/{KNOWN['thread_id']}"
            made("/threads", {"thread_id": KNOWN["thread_id"]})
            KNOWN["run_id"] = made(f"{thread}/runs", RUN)["run_id"]
            KNOWN["cron_id"] = made("/runs/crons", {**RUN, "schedule": KNOWN["schedule"]})["cron_id"]
            session.get(f"{stack.url}{thread}/runs/{KNOWN['run_id']}/join", timeout=DEADLINE_S).raise_for_status()
            state = session.get(f"{stack.url}{thread}/state", timeout=DEADLINE_S).json()
            KNOWN["checkpoint_id"] = state["checkpoint"]["checkpoint_id"]
            yield stack.url, session


@SCHEMA.parametrize()  # pyright: ignore[reportUntypedFunctionDecorator]
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=UNHURRIED)
def test_an_operation_answers_as_described(case: Case, server: tuple[str, requests.Session]) -> None:
    url, session = server
    wanted = case.as_transport_kwargs(base_url=url)
    with session.request(**wanted, timeout=DEADLINE_S, stream=True) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            # A stream may last for ever; what it says is the matter of other tests.
            described = DOCUMENT["paths"][case.path][case.method.lower()]["responses"]["200"]
            assert "text/event-stream" in described["content"]
            return
        if answer.status_code == UNAVAILABLE and answer.headers.get("retry-after"):
            return
        case.validate_response(answer, checks=CHECKS)
