"""The two applications under `examples/apps`, started by the ordinary command and driven by the stock SDK."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIStatusError

from testkit.dev_server import DevServer
from testkit.sdk import within
from testkit.stack import REPOSITORY

APPS: Final = REPOSITORY / "examples" / "apps"
LISBON: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "How much is Lisbon?"}]}
AGAIN: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "The same again"}]}


@pytest.fixture
def aegra(tmp_path: Path) -> Iterator[DevServer]:
    """The application with an `aegra.json`, which the command finds where no langgraph.json is."""
    server = DevServer(tmp_path / "state", APPS / "aegra" / "langgraph.json").ready()
    yield server
    assert server.end(signal.SIGTERM) == 0, server.text[-3000:]


@pytest.fixture
def langgraph_dev(tmp_path: Path) -> Iterator[DevServer]:
    """The application with a `langgraph.json`."""
    server = DevServer(tmp_path / "state", APPS / "langgraph_dev" / "langgraph.json").ready()
    yield server
    assert server.end(signal.SIGTERM) == 0, server.text[-3000:]


def last_text(values: Any) -> str:
    """The last message."""
    return str(values["messages"][-1]["content"])


def customer(server: DevServer, name: str) -> SyncLangGraphClient:
    """The stock client of one of the agency's customers."""
    return get_sync_client(url=server.url, headers=bearer(name))


def bearer(name: str) -> dict[str, str]:
    """What a customer sends."""
    return {"authorization": f"Bearer {name}-token"}


def test_an_application_written_for_aegra(aegra: DevServer) -> None:
    sdk = customer(aegra, "ada")
    assert {each["graph_id"] for each in sdk.assistants.search()} == {"concierge", "booking"}
    thread = sdk.threads.create()["thread_id"]

    def talk() -> list[Any]:
        return list(
            sdk.runs.stream(
                thread, "concierge", input=LISBON, context={"customer": "ada"}, stream_mode=["messages-tuple", "values"]
            )
        )

    parts = within(talk)
    tokens = [part.data[0]["content"] for part in parts if part.event == "messages"]
    assert "".join(tokens) == "Slow Trains: Lisbon is 120 euros." and len(tokens) > 2
    values = within(lambda: sdk.runs.wait(None, "concierge", input=AGAIN, context={"customer": "ada"}))
    assert last_text(values) == "Slow Trains: Lisbon is 120 euros.", "the store is shared by all threads"
    city: Any = sdk.store.get_item(["customers", "ada"], "city")
    assert city["value"] == {"name": "Lisbon"}

    booking = sdk.threads.create()["thread_id"]
    config: Any = {"configurable": {"first_class": True}}
    asked = within(lambda: sdk.runs.wait(booking, "booking", input={"city": "Oslo"}, config=config))
    assert isinstance(asked, dict) and asked["__interrupt__"][0]["value"] == {"pay": 300}
    assert sdk.threads.get(booking)["status"] == "interrupted"
    done = within(lambda: sdk.runs.wait(booking, "booking", command={"resume": "yes"}, config=config))
    assert done == {"city": "Oslo", "price": 300, "booked": True}

    its_rules_hold(aegra, thread)
    with httpx.Client(base_url=aegra.url, headers={"origin": "http://localhost:3000", **bearer("grace")}) as page:
        assert page.get("/").json() == {"agency": "open", "customer": "Grace"}
        assert page.get("/fares").json()["Oslo"] == 150
        answer = page.get("/fares")
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert page.get("/info").json()["flags"]["assistants"], "what it does not serve is ours"


def its_rules_hold(server: DevServer, thread_id: str) -> None:
    """A customer has their own threads and notes; a stranger has nothing, the agency's own pages included."""
    ada, grace = customer(server, "ada"), customer(server, "grace")
    assert (ada.threads.get(thread_id)["metadata"] or {})["owner"] == "ada"
    assert grace.threads.search() == [] and len(ada.threads.search()) == 3
    notes = ["customers", "ada"]
    for asked, status in (
        (lambda: grace.threads.get(thread_id), 404),
        (lambda: grace.runs.wait(thread_id, "concierge", input=AGAIN), 404),
        (lambda: grace.store.get_item(notes, "city"), 403),
        (lambda: ada.threads.delete(thread_id), 403),
        (lambda: ada.assistants.create("concierge"), 403),
        (lambda: customer(server, "mallory").threads.search(), 401),
    ):
        with pytest.raises((APIStatusError, httpx.HTTPStatusError)) as refused:
            asked()
        assert refused.value.response.status_code == status
    for path in ("/", "/fares"):
        assert httpx.get(f"{server.url}{path}").status_code == 401


async def test_an_application_written_for_langgraph_dev(langgraph_dev: DevServer) -> None:
    sdk = get_client(url=langgraph_dev.url, headers={"x-customer-name": "Grace"})
    for key, text in (("money", "a refund is paid within a week"), ("seats", "a seat is yours until the train leaves")):
        await sdk.store.put_item(["help", "pages"], key, {"text": text})
    thread = (await sdk.threads.create())["thread_id"]
    question: Any = {"messages": [{"role": "user", "content": "Which seat on the train is mine?"}]}
    seen: dict[str, Any] = {}
    async for part in sdk.runs.stream(thread, "support", input=question, stream_mode=["custom", "values"]):
        seen[part.event] = part.data
    assert seen["custom"] == {"looking": True}
    expected = "Dear Grace, our pages say: a seat is yours until the train leaves. The support desk"
    assert last_text(seen["values"]) == expected
    assert last_text((await sdk.threads.get_state(thread))["values"]) == expected
    schemas = await sdk.assistants.get_schemas("support")
    assert schemas["input_schema"] is not None
    async with httpx.AsyncClient(base_url=langgraph_dev.url) as page:
        assert [(await page.get("/visits")).json()["visits"] for _ in range(2)] == [1, 2]
        assert (await page.get("/elsewhere")).status_code == 404
    assert langgraph_dev.text.count("langgraph.json: no effect here: python_version") == 1
