"""What an operator sees of running processes: figures that move, traces that hold together, logs that parse."""

import json
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.stored import next_of_subject
from slipstream_schemas import subjects
from slipstream_schemas.run_state import decode_transition
from slipstream_schemas.subjects import Scope
from slipstream_schemas.traceparent import trace_id_of
from testkit.client import Client, new_thread
from testkit.observing import Collector, Figures
from testkit.servers import NatsServer, fresh_database
from testkit.sockets import Socket
from testkit.stack import HOST, Stack, free_port
from testkit.wait import until

WAIT_ROUTE = "/threads/{thread_id}/runs/wait"
QUICK: dict[str, Any] = {"assistant_id": "counter", "input": {"steps": 2, "delay_s": 0}}


class Watched:
    """A stack whose processes all serve figures, log JSON and export spans."""

    def __init__(self, stack: Stack, collector: Collector) -> None:
        self.stack, self.collector = stack, collector
        runner, projector = free_port(), free_port()
        services = [
            stack.spawn_api(),
            stack.spawn_runner(slipstream_metrics_port=str(runner)),
            stack.spawn_projector(slipstream_metrics_port=str(projector)),
        ]
        for service in services:
            service.wait_ready()
        self.runner, self.projector = f"http://{HOST}:{runner}", f"http://{HOST}:{projector}"


@pytest.fixture(scope="module")
def watched(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One for the module."""
    region, root = f"o{secrets.token_hex(5)}", tmp_path_factory.mktemp("watched")
    with (
        fresh_database(postgres_dsn) as dsn,
        Stack(nats_server.url, dsn, region, root) as stack,
        Collector() as collector,
    ):
        stack.settings = {
            "slipstream_log_format": "json",
            "otel_exporter_otlp_endpoint": collector.url,
            "otel_bsp_schedule_delay": "50",
        }
        stack.prepare()
        yield Watched(stack, collector)


@pytest.fixture
async def reader(live: Stack) -> AsyncIterator[Connection]:
    """A connection to read records of either stack with: both share the server."""
    opened = await connect(live.nats_url, "test")
    yield opened
    await opened.close()


async def test_figures_move(watched: Watched) -> None:
    thread_id = new_thread()
    async with Client(watched.stack.url) as client, Socket(watched.stack.url, new_thread()) as socket:
        run_id = await client.start(thread_id, "counter", {"steps": 1000, "delay_s": 0.05})
        path = f"/threads/{thread_id}/runs/{run_id}"
        async with client.events(thread_id) as events:
            await anext(events)

            async def is_running() -> bool:
                return bool((await client.http.get(path)).json()["status"] == "running")

            await until(is_running)
            api = Figures(watched.stack.url)
            assert api.content_type.startswith("text/plain; version=")
            assert api("slipstream_runs", status="running") == 1 and api.get("slipstream_runs", status="pending") == 0
            assert api("slipstream_open_streams", transport="sse") == 1
            assert api("slipstream_open_streams", transport="websocket") == 1
            assert api("slipstream_consumers", log="threads") >= 1 and api("slipstream_consumers", log="control") >= 2
            assert api("slipstream_reachable", part="nats") == api("slipstream_reachable", part="postgres") == 1
            assert api.get("slipstream_projection_lag_records") is not None
            assert api.get("slipstream_quarantined_records") == 0
            assert api("slipstream_log_bytes", log="threads") > 0
            assert api("slipstream_publish_seconds_count", outcome="stored") >= 1
            assert Figures(watched.runner)("slipstream_executing_runs") == 1
        assert (await client.http.post(f"{path}/cancel?wait=true")).is_success
        await socket.send({"id": 1, "method": "no.such"})

    def is_closed() -> bool:
        api = Figures(watched.stack.url)
        return not any(api("slipstream_open_streams", transport=each) for each in ("sse", "websocket"))

    await until(is_closed)


async def test_figures_of_runs_in_each_process(watched: Watched) -> None:
    async with Client(watched.stack.url) as client:
        before = [Figures(url) for url in (watched.stack.url, watched.runner, watched.projector)]
        for _ in range(2):
            (await client.http.post("/runs/wait", json=QUICK)).raise_for_status()
        assert (await client.http.get(f"/threads/{new_thread()}")).status_code == 404
        assert (await client.http.request("PROPFIND", "/no-such-route")).status_code == 404
    served = {"route": "/runs/wait", "method": "POST"}
    ended = {"graph": "counter", "outcome": "success"}

    def moved(place: int, name: str, **labels: str) -> float:
        url = (watched.stack.url, watched.runner, watched.projector)[place]
        return Figures(url)(name, **labels) - before[place](name, **labels)

    assert moved(0, "slipstream_http_requests_total", status="200", **served) == 2
    assert moved(0, "slipstream_http_response_start_seconds_count", **served) == 2
    assert moved(0, "slipstream_http_requests_total", route="/threads/{thread_id}", method="GET", status="404") == 1
    assert moved(0, "slipstream_http_requests_total", route="unmatched", method="other", status="404") == 1
    await until(lambda: moved(1, "slipstream_run_attempt_seconds_count", **ended) == 2)
    assert moved(1, "slipstream_queue_wait_seconds_count") == 2
    assert moved(1, "slipstream_published_lines_total") > 4
    assert moved(1, "slipstream_publish_seconds_count", outcome="stored") > 4
    await until(lambda: moved(2, "slipstream_ended_runs_total", status="success") == 2)
    assert moved(2, "slipstream_projected_records_total") >= 6
    assert moved(2, "slipstream_projection_delay_seconds_count") >= 6
    assert moved(2, "slipstream_projection_position") >= 6
    assert Figures(watched.runner)("slipstream_runner_slots") > 0
    assert "slipstream_build_info{" in Figures(watched.projector).text


async def test_no_thread_and_no_run_is_named(watched: Watched) -> None:
    thread_id = new_thread()
    async with Client(watched.stack.url) as client:
        run_id = await client.start(thread_id, "counter", QUICK["input"])
        await client.run_events(thread_id)
    for url in (watched.stack.url, watched.runner, watched.projector):
        text = Figures(url).text
        assert thread_id not in text and run_id not in text


async def test_a_runner_serves_figures_and_nothing_else(watched: Watched) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{watched.runner}/metrics?x=1")).status_code == 200
        assert (await http.get(f"{watched.runner}/")).status_code == 404
        assert (await http.post(f"{watched.runner}/metrics")).status_code == 501
        openmetrics = await http.get(f"{watched.runner}/metrics", headers={"accept": "application/openmetrics-text"})
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")


async def test_figures_are_served_while_the_log_is_away(own_stack: Stack, own_nats: NatsServer) -> None:
    api = own_stack.spawn_api()
    await api.ready()
    own_nats.kill()

    def scraped() -> Figures | None:
        found = Figures(own_stack.url)
        return found if found.get("slipstream_reachable", part="nats") == 0 else None

    figures = await until(scraped)
    assert figures is not None and figures.get("slipstream_reachable", part="postgres") == 1
    assert figures.get("slipstream_runs", status="running") == 0
    assert figures.get("slipstream_projection_lag_records") is None, "an old figure would look like a healthy one"
    assert figures.get("slipstream_consumers", log="threads") is None


async def carried_by(connection: Connection, region: str, thread_id: str) -> tuple[str, list[str]]:
    """The traceparent of the thread's run, and those of its records."""
    scope = Scope(region)
    first = await next_of_subject(connection, subjects.control_stream(region), subjects.control(scope, thread_id), 1)
    assert first is not None
    transition, seq = decode_transition(first.body), 0
    while transition.name != "run_created":
        first = await next_of_subject(
            connection, subjects.control_stream(region), subjects.control(scope, thread_id), first.stream_seq + 1
        )
        assert first is not None
        transition = decode_transition(first.body)
    created = json.loads(bytes(transition.payload))
    records: list[str] = []
    while True:
        record = await next_of_subject(
            connection, subjects.threads_stream(region), subjects.thread_log(scope, thread_id), seq + 1
        )
        if record is None:
            return created.get("traceparent", ""), records
        records.append(record.headers.get("traceparent", ""))
        seq = record.stream_seq


def caller() -> tuple[str, str, dict[str, str]]:
    """A trace id, a span id and the header of a caller."""
    trace_id, span_id = uuid.uuid4().hex, secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-01"}


async def test_a_trace_holds_from_the_request_to_the_node(watched: Watched, reader: Connection) -> None:
    thread_id = new_thread()
    trace_id, span_id, header = caller()
    body = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "Lisbon?"}]},
            "if_not_exists": "create", "metadata": {"tenant": "acme", "order": {"no": "attribute"}}}  # fmt: skip
    async with Client(watched.stack.url) as client:
        path = f"/threads/{thread_id}/runs/wait"
        (await client.http.post(path, json=body, headers=header)).raise_for_status()
    spans = await until(
        lambda: found if "run agent" in (found := watched.collector.of_trace(trace_id)) else None, what="spans"
    )
    assert spans is not None
    request, accepted, attempt = spans[f"POST {WAIT_ROUTE}"], spans["accept run"], spans["run agent"]
    assert (request.service, request.parent_id) == ("slipstream-api", span_id)
    assert accepted.parent_id == request.span_id
    assert (attempt.service, attempt.parent_id) == ("slipstream-runner", accepted.span_id)
    assert attempt.attributes["slipstream.thread_id"] == thread_id
    for span in (accepted, attempt):
        assert span.attributes["langfuse.trace.metadata.tenant"] == "acme"
        assert "langfuse.trace.metadata.order" not in span.attributes
    nodes = [span for name, span in spans.items() if name.startswith("node ")]
    assert nodes and all(span.parent_id == attempt.span_id for span in nodes)
    models = [span for name, span in spans.items() if name.startswith("model ")]
    assert models and all(span.parent_id in {node.span_id for node in nodes} for span in models)
    assert not any(span.failed for span in spans.values())
    created, records = await carried_by(reader, watched.stack.region, thread_id)
    assert created == f"00-{trace_id}-{accepted.span_id}-01"
    assert len(records) > 2 and set(records) == {f"00-{trace_id}-{attempt.span_id}-01"}


async def test_without_a_collector_the_callers_trace_is_carried(live: Stack, reader: Connection) -> None:
    for header in (caller()[2], {}, {"traceparent": "not one"}):
        thread_id = new_thread()
        async with Client(live.url) as client:
            body = {**QUICK, "if_not_exists": "create"}
            answer = await client.http.post(f"/threads/{thread_id}/runs/wait", json=body, headers=header)
            answer.raise_for_status()
        wanted = "" if header.get("traceparent") == "not one" else header.get("traceparent", "")
        created, records = await carried_by(reader, live.region, thread_id)
        assert created == wanted and set(records) == {wanted}


async def test_logs_are_objects_that_name_run_thread_and_trace(watched: Watched) -> None:
    thread_id = new_thread()
    trace_id, _, header = caller()
    async with Client(watched.stack.url) as client:
        body = {**QUICK, "if_not_exists": "create"}
        answer = await client.http.post(f"/threads/{thread_id}/runs/wait", json=body, headers=header)
        run_id = answer.headers["content-location"].rpartition("/")[2]

    def logged() -> list[dict[str, Any]]:
        text = "".join(service.log_text() for service in watched.stack.services)
        lines = [json.loads(line) for line in text.splitlines()]
        assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
        return [line for line in lines if line.get("run_id") == run_id]

    (line, *_) = await until(logged)
    assert (line["thread_id"], line["trace_id"], line["level"]) == (
        thread_id,
        trace_id_of(header["traceparent"]),
        "info",
    )
    assert line["trace_id"] == trace_id and line["logger"] == "slipstream.runner"
