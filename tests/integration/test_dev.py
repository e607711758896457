"""`slipstream dev` as a user meets it: it starts, serves, stops, and leaves nothing behind."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from testkit.dev_server import DEADLINE_S, DevServer
from testkit.servers import NatsServer
from testkit.wait import until_now


@pytest.fixture
def servers() -> Iterator[list[DevServer]]:
    """Servers to be killed when the test is over."""
    started: list[DevServer] = []
    yield started
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def gone(family: list[psutil.Process]) -> bool:
    """Whether nothing of it lives."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family if exists(each))


def exists(process: psutil.Process) -> bool:
    """Whether the kernel still knows it."""
    return bool(psutil.pid_exists(process.pid))


def count_to(url: str, thread: str, steps: int) -> dict[str, int]:
    """Run the counter on a thread of its own."""
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        client.post("/threads", json={"thread_id": thread}).raise_for_status()
        run = {"assistant_id": "counter", "input": {"steps": steps, "delay_s": 0.01}}
        found: dict[str, int] = client.post(f"/threads/{thread}/runs/wait", json=run).raise_for_status().json()
        return found


def test_it_serves_stops_and_remembers(tmp_path: Path, servers: list[DevServer]) -> None:
    servers.append(DevServer(tmp_path / "state").ready())
    assert count_to(servers[0].url, "t1", 3)["count"] == 3
    page = httpx.get(f"{servers[0].url}/docs")
    assert page.status_code == 200 and "stream/events" in page.text
    family = servers[0].family()
    assert len(family) >= 6
    assert servers[0].end(signal.SIGTERM) == 0, servers[0].text[-3000:]
    until_now(lambda: gone(family), DEADLINE_S, "every process is gone")
    servers.append(DevServer(tmp_path / "state").ready())
    assert httpx.get(f"{servers[1].url}/threads/t1").json()["values"]["count"] == 3
    assert servers[1].end(signal.SIGINT) == 0


def test_killed_it_leaves_nothing_running_and_loses_nothing(tmp_path: Path, servers: list[DevServer]) -> None:
    servers.append(DevServer(tmp_path / "state").ready())
    assert count_to(servers[0].url, "t1", 2)["count"] == 2
    family = servers[0].family()
    servers[0].end(signal.SIGKILL)
    until_now(lambda: gone(family), DEADLINE_S, "every process is gone")
    servers.append(DevServer(tmp_path / "state").ready())
    assert httpx.get(f"{servers[1].url}/threads/t1").json()["values"]["count"] == 2


def test_servers_that_exist_replace_the_embedded_ones(
    tmp_path: Path, servers: list[DevServer], own_nats: NatsServer, database_dsn: str
) -> None:
    given = {"NATS_URL": own_nats.url, "DATABASE_URL": database_dsn}
    servers.append(DevServer(tmp_path / "state", given=given).ready())
    assert not {each.name() for each in servers[0].family()} & {"nats-server", "postgres"}
    assert count_to(servers[0].url, "t1", 2)["count"] == 2
    with psycopg.connect(database_dsn, autocommit=True) as rows:
        query = "SELECT values->>'count' FROM threads WHERE thread_id='t1'"
        until_now(lambda: rows.execute(query).fetchall() == [("2",)], DEADLINE_S, "the row follows the log")
    assert servers[0].end(signal.SIGTERM) == 0
    assert psutil.pid_exists(own_nats.pid), "what it did not start it does not stop"


def test_a_taken_port_and_a_taken_state_folder_are_said_before_anything_starts(
    tmp_path: Path, servers: list[DevServer]
) -> None:
    servers.append(DevServer(tmp_path / "state").ready())
    same_port = DevServer(tmp_path / "other", port=servers[0].port)
    assert same_port.process.wait(DEADLINE_S) == 1
    assert f"port {servers[0].port}" in same_port.text and "--port" in same_port.text
    same_state = DevServer(tmp_path / "state")
    assert same_state.process.wait(DEADLINE_S) == 1
    assert str(servers[0].process.pid) in same_state.text and "--state-dir" in same_state.text


def test_a_missing_config_says_what_to_write(tmp_path: Path) -> None:
    server = DevServer(tmp_path / "state", tmp_path / "langgraph.json")
    assert server.process.wait(DEADLINE_S) == 1
    assert "does not exist" in server.text and '"graphs"' in server.text


GRAPH = """from typing import TypedDict
from langgraph.graph import START, StateGraph
class S(TypedDict, total=False):
    said: str
graph = StateGraph(S).add_node("say", lambda s: {{"said": "{word}"}}).add_edge(START, "say").compile()
"""


def test_changed_code_is_served_without_a_restart(tmp_path: Path, servers: list[DevServer]) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "langgraph.json").write_text('{"graphs": {"g": "./g.py:graph"}}')
    (project / "g.py").write_text(GRAPH.format(word="before"))
    servers.append(DevServer(tmp_path / "state", project / "langgraph.json").ready())

    def said() -> str:
        answer = httpx.post(f"{servers[0].url}/runs/wait", json={"assistant_id": "g", "input": {}}, timeout=DEADLINE_S)
        return str(answer.json()["said"])

    assert said() == "before"
    (project / "g.py").write_text(GRAPH.format(word="after"))
    until_now(lambda: said() == "after", DEADLINE_S, "the new code is served")
    assert "g.py changed" in servers[0].text
