"""Crons at their edges: a tick is one run, whatever is killed, repeated or away; bad requests change nothing."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from slipstream_nats.connection import connect
from slipstream_nats.publisher import open_publisher
from slipstream_nats.schedules import Schedules
from slipstream_nats.stored import StoredMessage, last_of_subject, next_of_subject
from slipstream_schemas import subjects
from slipstream_schemas.ids import derived_id
from slipstream_schemas.limits import CRON_SCHEDULE_CHARS_MAX, METADATA_KEYS_MAX, SEARCH_LIMIT_MAX
from slipstream_schemas.record import TRANSITION_HEADER
from slipstream_schemas.subjects import Scope
from testkit.client import new_thread
from testkit.servers import NatsServer
from testkit.stack import Stack
from testkit.wait import until

LEAD_S = 3


def once(lead_s: float = LEAD_S) -> tuple[str, int]:
    """A schedule that ticks soon and then tomorrow, and that tick in Unix milliseconds."""
    due_s = int(time.time() + lead_s)
    at = datetime.fromtimestamp(due_s, UTC)
    return f"{at.minute} {at.hour} * * * {at.second}", due_s * 1000


class Rig:
    """A thread with a cron of one tick, and what the log says of it."""

    def __init__(self, stack: Stack, nats_url: str) -> None:
        self.stack, self.nats_url, self.thread_id, self.cron_id, self.due_ms = stack, nats_url, new_thread(), "", 0

    async def create(self, lead_s: float = LEAD_S) -> None:
        """Make both."""
        schedule, self.due_ms = once(lead_s)
        async with httpx.AsyncClient(base_url=self.stack.url, timeout=30) as http:
            (await http.post("/threads", json={"thread_id": self.thread_id})).raise_for_status()
            body = {"assistant_id": "counter", "schedule": schedule, "input": {"steps": 1, "delay_s": 0}}
            made = (await http.post(f"/threads/{self.thread_id}/runs/crons", json=body)).raise_for_status().json()
        self.cron_id = made["cron_id"]

    async def records(self, name: str) -> int:
        """How many transitions of that name the thread has."""
        connection = await connect(self.nats_url, "rig")
        subject, stream = (
            subjects.control(Scope(self.stack.region), self.thread_id), subjects.control_stream(self.stack.region)
        )  # fmt: skip
        count, after = 0, 1
        found: StoredMessage | None = await next_of_subject(connection, stream, subject, after)
        while found is not None:
            count += found.headers.get(TRANSITION_HEADER) == name
            found = await next_of_subject(connection, stream, subject, found.stream_seq + 1)
        await connection.close()
        return count

    async def succeeded(self) -> None:
        """Wait until the tick's run has succeeded."""
        run_id = derived_id("cron", "default", self.cron_id, str(self.due_ms))

        async def is_over() -> bool:
            async with httpx.AsyncClient(base_url=self.stack.url, timeout=30) as http:
                answer = await http.get(f"/threads/{self.thread_id}/runs/{run_id}")
            return answer.status_code == 200 and answer.json()["status"] == "success"

        await until(is_over, 60.0)

    async def handled(self) -> None:
        """Wait until the cron has moved on."""

        def moved() -> bool:
            with psycopg.connect(self.stack.dsn) as connection:
                query = "SELECT next_run_date > to_timestamp(%s) FROM crons WHERE cron_id=%s"
                row = connection.execute(query, (self.due_ms / 1000, self.cron_id)).fetchone()
            return bool(row and row[0])

        await until(moved, 60.0)

    async def due(self) -> None:
        """Wait until the tick's time is over."""
        await until(lambda: time.time() * 1000 > self.due_ms + 200)


async def test_a_tick_is_one_run_with_two_apis_and_a_firing_repeated(stack: Stack, nats_server: NatsServer) -> None:
    stack.start(apis=2)
    rig = Rig(stack, nats_server.url)
    await rig.create()
    await rig.succeeded()
    await rig.handled()
    connection = await connect(nats_server.url, "rig")
    schedules = Schedules(connection, await open_publisher(connection), stack.region)
    scope = Scope(stack.region)
    # The same tick again, by a row that was set back as well: as if the instance had died before it moved the row on.
    with psycopg.connect(stack.dsn) as database:
        database.execute("UPDATE crons SET next_run_date=to_timestamp(%s)", (rig.due_ms / 1000,))
    await schedules.put(scope, rig.cron_id, rig.due_ms)
    await rig.handled()
    subject = subjects.cron_due(scope, rig.cron_id)

    async def is_purged() -> bool:
        return await last_of_subject(connection, subjects.control_stream(stack.region), subject) is None

    await until(is_purged)
    await connection.close()
    assert await rig.records("run_created") == 1


async def test_an_api_that_dies_behind_the_creation_leaves_one_run(stack: Stack, nats_server: NatsServer) -> None:
    stack.start()
    rig = Rig(stack, nats_server.url)
    await rig.create(2 * LEAD_S)
    stack.apis[0].kill()
    dying = stack.spawn_api(slipstream_crashpoint="created")
    await dying.ended()
    stack.spawn_api()
    await stack.apis[0].ready()
    await rig.handled()
    await rig.succeeded()
    assert await rig.records("run_created") == 1


async def test_a_tick_without_an_api_runs_when_one_is_back(stack: Stack, nats_server: NatsServer) -> None:
    stack.start()
    rig = Rig(stack, nats_server.url)
    await rig.create()
    stack.apis[0].kill()
    await rig.due()
    stack.spawn_api()
    await stack.apis[0].ready()
    await rig.succeeded()
    assert await rig.records("run_created") == 1


async def test_a_tick_that_the_broker_missed_is_made_up_for(own_stack: Stack, own_nats: NatsServer) -> None:
    own_stack.start()
    rig = Rig(own_stack, own_nats.url)
    await rig.create()
    own_nats.kill()
    await rig.due()
    own_nats.start()
    await rig.succeeded()
    await rig.handled()
    assert await rig.records("run_created") == 1


CRON: dict[str, Any] = {"assistant_id": "counter", "schedule": "0 0 1 1 *", "input": {}}
BAD: list[tuple[str, str, Any, int]] = [
    ("POST", "/runs/crons", {}, 422),
    ("POST", "/runs/crons", b"{", 422),
    ("POST", "/runs/crons", {**CRON, "schedule": None}, 422),
    ("POST", "/runs/crons", {**CRON, "schedule": "every day"}, 422),
    ("POST", "/runs/crons", {**CRON, "schedule": "0 0 30 2 *", "enabled": False}, 422),
    ("POST", "/runs/crons", {**CRON, "schedule": "*" * (CRON_SCHEDULE_CHARS_MAX + 1)}, 422),
    ("POST", "/runs/crons", {**CRON, "timezone": "Mars/Olympus"}, 422),
    ("POST", "/runs/crons", {**CRON, "end_time": "tomorrow"}, 422),
    ("POST", "/runs/crons", {**CRON, "end_time": "0001-01-01T00:00:00+14:00"}, 422),
    ("POST", "/runs/crons", {**CRON, "on_run_completed": "burn"}, 422),
    ("POST", "/runs/crons", {**CRON, "enabled": "yes"}, 422),
    ("POST", "/runs/crons", {**CRON, "metadata": {str(n): n for n in range(METADATA_KEYS_MAX + 1)}}, 422),
    ("POST", "/runs/crons", {**CRON, "multitask_strategy": "bogus"}, 422),
    ("POST", "/runs/crons", {**CRON, "stream_mode": "bogus"}, 422),
    ("POST", "/runs/crons", {**CRON, "assistant_id": "nobody"}, 422),
    ("POST", "/threads/no-such-thread/runs/crons", CRON, 404),
    ("POST", "/threads/a.b/runs/crons", CRON, 422),
    ("GET", "/runs/crons/no-such-cron", None, 404),
    ("GET", "/runs/crons/a.b", None, 422),
    ("PATCH", "/runs/crons/no-such-cron", {}, 404),
    ("DELETE", "/runs/crons/no-such-cron", None, 404),
    ("POST", "/runs/crons/search", {"limit": SEARCH_LIMIT_MAX + 1}, 422),
    ("POST", "/runs/crons/search", {"sort_by": "payload; --"}, 422),
    ("POST", "/runs/crons/search", {"sort_order": "up"}, 422),
    ("POST", "/runs/crons/search", {"select": ["tenant"]}, 422),
    ("POST", "/runs/crons/count", {"enabled": 1}, 422),
]


async def test_bad_requests_get_their_status_and_change_nothing(live: Stack) -> None:
    wrong: list[Any] = []
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        made = (await http.post("/runs/crons", json=CRON)).json()
        before = (await http.post("/runs/crons/search", json={"limit": 1000})).json()
        path = f"/runs/crons/{made['cron_id']}"
        patches = [("PATCH", path, {"schedule": "x"}, 422), ("PATCH", path, {"timezone": "x"}, 422),
                   ("PATCH", path, {"stream_mode": "bogus"}, 422), ("PATCH", path, {"end_time": "x"}, 422)]  # fmt: skip
        for method, where, body, status in [*BAD, *patches]:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            answer = await http.request(method, where, content=content)
            if answer.status_code != status or not answer.json()["detail"]:
                wrong.append((method, where, str(body)[:100], answer.status_code, answer.text[:200]))
        assert wrong == []
        assert (await http.post("/runs/crons/search", json={"limit": 1000})).json() == before
        assert (await http.delete(path)).status_code == 204


@pytest.mark.parametrize("field", ["end_time", "timezone"])
async def test_null_takes_a_field_away(live: Stack, field: str) -> None:
    async with httpx.AsyncClient(base_url=live.url) as http:
        body = {**CRON, "end_time": "2099-01-01T00:00:00", "timezone": "Europe/Berlin"}
        made = (await http.post("/runs/crons", json=body)).json()
        assert made["end_time"] == "2099-01-01T00:00:00+00:00"
        path = f"/runs/crons/{made['cron_id']}"
        assert (await http.patch(path, json={field: None})).json()[field] is None
        await http.delete(path)


def test_the_total_is_that_of_all_pages(live: Stack) -> None:
    mark = {"of": new_thread()}
    cron = {"assistant_id": "counter", "schedule": "0 4 * * *", "enabled": False, "metadata": mark}
    with httpx.Client(base_url=live.url, timeout=30) as http:
        for _ in range(3):
            http.post("/runs/crons", json=cron).raise_for_status()
        page = http.post("/runs/crons/search", json={"metadata": mark, "limit": 1})
        assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "1")
