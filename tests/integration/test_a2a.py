"""Assistants as agents of the Agent2Agent protocol, with the stock client."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import (
    DataPart,
    FilePart,
    FileWithUri,
    Message,
    Part,
    Role,
    Task,
    TaskIdParams,
    TaskQueryParams,
    TextPart,
    TransportProtocol,
)
from langgraph_sdk import get_client

from testkit.stack import Stack

COUNT: dict[str, Any] = {"steps": 2, "delay_s": 0}
ENDLESS: dict[str, Any] = {"steps": 1000, "delay_s": 0.05}
RPC: dict[str, Any] = {"jsonrpc": "2.0", "id": "one"}


@asynccontextmanager
async def agent(
    stack: Stack, assistant_id: str, *, streaming: bool = False, polling: bool = False
) -> AsyncIterator[Client]:
    """A client of an assistant, found by its card."""
    async with httpx.AsyncClient(timeout=30) as http:
        found = {"params": {"assistant_id": assistant_id}}
        card = await A2ACardResolver(http, stack.url).get_agent_card(http_kwargs=found)
        transports: list[TransportProtocol | str] = [TransportProtocol.jsonrpc]
        config = ClientConfig(streaming, polling, http, supported_transports=transports)
        yield ClientFactory(config).create(card)


def message(part: str | dict[str, Any], context_id: str | None = None) -> Message:
    """A user's message."""
    root = TextPart(text=part) if isinstance(part, str) else DataPart(data=part)
    return Message(message_id=str(uuid.uuid4()), role=Role.user, parts=[Part(root=root)], context_id=context_id)


async def told(client: Client, said: Message) -> tuple[Task, list[Any]]:
    """The task at the end, and what came before it."""
    task: Task | None = None
    updates: list[Any] = []
    async for event in client.send_message(said):
        assert isinstance(event, tuple)
        task = event[0]
        updates.append(event[1])
    assert task is not None
    return task, updates


def result_of(task: Task) -> Any:
    """The text or the data of a task's one artifact."""
    (artifact,) = task.artifacts or []
    (part,) = artifact.parts
    return part.root.text if isinstance(part.root, TextPart) else getattr(part.root, "data", None)


async def test_a_card_says_where_the_agent_is(live: Stack) -> None:
    sdk = get_client(url=live.url)
    assistant_id = (await sdk.assistants.create("chat", name="Talker", description="Talks"))["assistant_id"]
    async with agent(live, assistant_id) as client:
        card = await client.get_card()
        assert (card.name, card.description) == ("Talker", "Talks")
        assert card.url == f"{live.url}/a2a/{assistant_id}" and card.capabilities.streaming
    await sdk.assistants.delete(assistant_id)
    path = f"{live.url}/.well-known/agent-card.json"
    assert httpx.get(path, params={"assistant_id": assistant_id}).status_code == 404
    assert httpx.get(path).status_code == 422


async def test_a_message_is_a_run_and_its_context_a_thread(live: Stack) -> None:
    sdk = get_client(url=live.url)
    async with agent(live, "chat") as client:
        task, _ = await told(client, message("hello"))
        assert task.status.state == "completed"
        again, _ = await told(client, message("and again", task.context_id))
        assert again.context_id == task.context_id and again.id != task.id
        values: Any = (await sdk.threads.get(task.context_id))["values"]
        assert [each["content"] for each in values["messages"]][::2] == ["hello", "and again"]
        assert result_of(again) == values["messages"][-1]["content"]
        assert {run["run_id"] for run in await sdk.runs.list(task.context_id)} == {task.id, again.id}
        assert await client.get_task(TaskQueryParams(id=again.id)) == again
    async with agent(live, "counter") as other:
        with pytest.raises(Exception, match="Task not found"):
            await other.get_task(TaskQueryParams(id=task.id))


async def test_a_stream_says_the_words_and_can_be_taken_up_again(live: Stack) -> None:
    async with agent(live, "chat", streaming=True) as client:
        task, updates = await told(client, message("hello"))
        assert task.status.state == "completed"
        working = [each for each in updates if each is not None and each.kind == "status-update" and not each.final]
        assert "".join(each.status.message.parts[0].root.text for each in working) == result_of(task)
        assert len(working) > 1 and updates[-1].final
        seen = [event[0] async for event in client.resubscribe(TaskIdParams(id=task.id))]
        assert result_of(seen[-1]) == result_of(task)


async def test_a_question_is_answered_by_the_next_message(live: Stack) -> None:
    async with agent(live, "approval") as client:
        asked, _ = await told(client, message({"amount": 7}))
        assert asked.status.state == "input-required" and asked.status.message is not None
        (part,) = asked.status.message.parts
        assert isinstance(part.root, DataPart)
        assert part.root.data["__interrupt__"][0]["value"]["question"] == "Refund 7?"
        done, _ = await told(client, message("yes", asked.context_id))
        assert done.status.state == "completed" and result_of(done)["result"] == "refunded"


async def test_a_failure_is_a_failed_task(live: Stack) -> None:
    async with agent(live, "boom") as client:
        task, _ = await told(client, message("hello"))
        assert task.status.state == "failed" and task.status.message is not None and not task.artifacts
        assert "boom: the stove is on fire" in str(task.status.message.parts)


async def test_a_task_is_followed_and_stopped(live: Stack) -> None:
    async with agent(live, "counter", polling=True) as client:
        begun, _ = await told(client, message(ENDLESS))
        assert begun.status.state == "submitted"
        shown = await client.get_task(TaskQueryParams(id=begun.id))
        assert shown.status.state in ("submitted", "working")
        stopped = await client.cancel_task(TaskIdParams(id=begun.id))
        assert stopped.status.state == "canceled"
        with pytest.raises(Exception, match="over"):
            await client.cancel_task(TaskIdParams(id=begun.id))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**RPC, "method": "tasks/list"}, 200, -32601),
        ({**RPC, "method": "tasks/get", "params": {"id": str(uuid.uuid4())}}, 200, -32001),
        ({**RPC, "method": "tasks/get", "params": {"id": "a.b"}}, 200, -32001),
        ({**RPC, "method": "message/send", "params": {"message": {"parts": []}}}, 200, -32602),
        ({**RPC, "method": "message/send", "params": {}}, 200, -32602),
        (
            {**RPC, "method": "message/send", "params": {"message": {"parts": [{"kind": "text", "text": "x"}]}}},
            200,
            -32602,
        ),
        ({"id": 1}, 400, -32600),
    ],
)
def test_a_call_that_cannot_be_done_is_refused(live: Stack, body: dict[str, Any], status: int, code: int) -> None:
    # The counter takes no messages, so no text either.
    answer = httpx.post(f"{live.url}/a2a/counter", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert httpx.post(f"{live.url}/a2a/nobody", json={**RPC, "method": "tasks/get"}).status_code == 404


async def test_what_an_agent_cannot_take_is_refused(live: Stack) -> None:
    said = message("x")
    said.parts = [Part(root=FilePart(file=FileWithUri(uri="file:///x")))]
    push = {"pushNotificationConfig": {"url": "http://127.0.0.1/x"}}
    async with agent(live, "chat") as client:
        with pytest.raises(Exception, match="not supported"):
            await told(client, said)
    body = {"message": message("x").model_dump(by_alias=True, mode="json"), "configuration": push}
    answer = httpx.post(f"{live.url}/a2a/chat", json={**RPC, "method": "message/send", "params": body})
    assert answer.json()["error"]["code"] == -32003
