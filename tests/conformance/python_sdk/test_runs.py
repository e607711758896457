"""Protocol v1 with the SDK: `runs` and `threads` in every mode, resumed, joined, cancelled, resumed by commands."""

import asyncio
import itertools
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from testkit.sdk import DEADLINE_S, HELLO, all_of, within

CHAT = "You said: hello. That was message 1 of our conversation, and the log keeps every word."
COUNTED: dict[str, Any] = {"steps": 5, "delay_s": 0.01}


async def new_thread(sdk: LangGraphClient) -> str:
    """A thread's id."""
    return str((await sdk.threads.create())["thread_id"])


@pytest.mark.promise("POST /threads/{t}/runs/stream", reference="served", aegra="served, with an `end` event")
async def test_a_stream_of_many_modes(sdk: LangGraphClient) -> None:
    """`runs.stream` yields every mode that was asked for, `metadata` first, and the tokens make the message."""
    modes: list[Any] = ["values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "debug"]
    parts = await all_of(sdk.runs.stream(await new_thread(sdk), "chat", input=HELLO, stream_mode=modes))
    assert parts[0].event == "metadata" and parts[0].data["run_id"]
    assert {"values", "updates", "messages", "tasks", "checkpoints", "debug"} <= {part.event for part in parts}
    assert "".join(part.data[0]["content"] for part in parts if part.event == "messages") == CHAT
    assert [part for part in parts if part.event == "values"][-1].data["messages"][-1]["content"] == CHAT


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints",
                                  "debug", "events"])  # fmt: skip
@pytest.mark.promise("POST /threads/{t}/runs/stream stream_mode", reference="not recorded", aegra="not recorded")
async def test_a_stream_of_one_mode(sdk: LangGraphClient, mode: Any) -> None:
    """Each mode alone yields its own events, `metadata` and no others."""
    stream = sdk.runs.stream(await new_thread(sdk), "subgraphs", input=HELLO, stream_mode=mode, stream_subgraphs=True)
    names = {part.event.split("|")[0].split("/")[0] for part in await all_of(stream)}
    assert names == {"metadata", mode.removesuffix("-tuple")}


@pytest.mark.promise("POST /threads/{t}/runs/stream stream_subgraphs", reference="not recorded", aegra="not recorded")
async def test_a_stream_with_subgraphs(sdk: LangGraphClient) -> None:
    """With `stream_subgraphs` the events name their namespace; without it subgraphs stay silent."""

    async def names(subgraphs: bool) -> set[str]:
        modes: list[Any] = ["updates", "custom"]
        thread_id = await new_thread(sdk)
        stream = sdk.runs.stream(thread_id, "subgraphs", input=HELLO, stream_mode=modes, stream_subgraphs=subgraphs)
        return {"|".join(each.split(":")[0] for each in part.event.split("|")) for part in await all_of(stream)}

    assert await names(False) == {"metadata", "updates"}
    assert await names(True) == {"metadata", "updates", "updates|team", "updates|team|researcher",
                                 "custom|team|researcher"}  # fmt: skip


@pytest.mark.promise("POST /threads/{t}/runs/stream messages", reference="not recorded", aegra="not recorded")
async def test_a_message_grows(sdk: LangGraphClient) -> None:
    """In the mode `messages` each part holds all of the message so far."""
    stream = sdk.runs.stream(await new_thread(sdk), "chat", input=HELLO, stream_mode="messages")
    seen = [part.data[0]["content"] async for part in stream if part.event == "messages/partial"]
    assert len(seen) > 5 and seen[-1] == CHAT
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))


@pytest.mark.promise(
    "GET /threads/{t}/runs/{r}/stream Last-Event-ID",
    reference="only of resumable runs; events of one millisecond share an id, and some are lost",
    aegra="an id that it does not know replays all",
)
async def test_a_stream_is_joined_behind_any_event(sdk: LangGraphClient) -> None:
    """`runs.join_stream` behind the id of any event yields exactly the events after it."""
    modes: list[Any] = ["values", "updates", "messages-tuple", "custom"]
    thread_id = await new_thread(sdk)
    whole = await all_of(sdk.runs.stream(thread_id, "subgraphs", input=HELLO, stream_mode=modes))
    run_id = str(whole[0].data["run_id"])
    for place in range(len(whole)):
        rest = await all_of(
            sdk.runs.join_stream(thread_id, run_id, stream_mode=modes, last_event_id=str(whole[place].id))
        )
        assert [(part.event, part.id, part.data) for part in rest if part.event != "metadata"] == [
            (part.event, part.id, part.data) for part in whole[place + 1 :]
        ]


@pytest.mark.promise("GET /threads/{t}/runs/{r}/stream", reference="from now on", aegra="replays all")
async def test_a_stream_is_joined_live(sdk: LangGraphClient) -> None:
    """`runs.join_stream` yields the rest of a run that executes and ends with it, and nothing of one that is over."""
    thread_id, slow = await new_thread(sdk), {"steps": 10, "delay_s": 0.1}
    run = await sdk.runs.create(thread_id, "counter", input=slow, stream_mode=["values"])
    async with asyncio.timeout(DEADLINE_S):
        parts = await all_of(sdk.runs.join_stream(thread_id, run["run_id"], stream_mode="values"))
        assert parts[-1].data["count"] == slow["steps"]
        assert await all_of(sdk.runs.join_stream(thread_id, run["run_id"], stream_mode="values")) == []


@pytest.mark.promise("POST /threads/{t}/runs/wait", reference="same", aegra="same, without response_schema")
async def test_a_question_is_answered_by_a_command(sdk: LangGraphClient) -> None:
    """`runs.wait` names the question, the thread shows it, and `Command(resume)` answers it."""
    thread_id = await new_thread(sdk)
    asked: Any = await sdk.runs.wait(thread_id, "approval", input={"amount": 7})
    assert asked["__interrupt__"][0]["value"]["question"] == "Refund 7?"
    thread = await sdk.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    ((shown,),) = thread["interrupts"].values()
    assert shown["value"]["question"] == "Refund 7?"
    done: Any = await sdk.runs.wait(thread_id, "approval", command={"resume": "yes"})
    assert done["result"] == "refunded"
    assert (await sdk.threads.get(thread_id))["status"] == "idle"


@pytest.mark.promise("POST /threads/{t}/runs/stream command", reference="not recorded", aegra="not recorded")
async def test_a_command_updates_and_goes_elsewhere(sdk: LangGraphClient) -> None:
    """`Command(resume, update, goto)` answers, changes the state once, and runs the other node as well."""
    thread_id = await new_thread(sdk)
    await sdk.runs.wait(thread_id, "approval", input={"amount": 7})
    command: Any = {"resume": "yes", "update": {"amount": 70}, "goto": "act"}
    stream = sdk.runs.stream(thread_id, "approval", command=command, stream_mode="updates")
    nodes = [node for part in await all_of(stream) if part.event == "updates" for node in part.data]
    assert nodes.count("ask") == 1 and nodes.count("act") == 2
    state: Any = (await sdk.threads.get_state(thread_id))["values"]
    assert state == {"amount": 70, "approved": True, "result": "refunded"}


@pytest.mark.promise("POST /threads/{t}/runs/stream error", reference="the text", aegra="masked")
async def test_a_failed_run_says_why(sdk: LangGraphClient) -> None:
    """A node's failure reaches the stream as `error` with its type and text, and `runs.wait` raises nothing less."""
    parts = await all_of(sdk.runs.stream(await new_thread(sdk), "boom", input=HELLO))
    assert parts[-1].event == "error"
    assert parts[-1].data == {"error": "ValueError", "message": "boom: the stove is on fire"}
    with pytest.raises(Exception, match="the stove is on fire"):
        await sdk.runs.wait(await new_thread(sdk), "boom", input=HELLO)
    answer: Any = await sdk.runs.wait(await new_thread(sdk), "boom", input=HELLO, raise_error=False)
    assert answer == {"__error__": {"error": "ValueError", "message": "boom: the stove is on fire"}}


@pytest.mark.promise("POST /runs/stream, POST /runs/wait", reference="served", aegra="served")
async def test_runs_without_a_thread(sdk: LangGraphClient) -> None:
    """A run without a thread streams and waits as one on a thread does."""
    parts = await all_of(sdk.runs.stream(None, "chat", input=HELLO, stream_mode="messages-tuple"))
    assert "".join(part.data[0]["content"] for part in parts if part.event == "messages") == CHAT
    done: Any = await sdk.runs.wait(None, "chat", input=HELLO)
    assert done["messages"][-1]["content"] == CHAT


@pytest.mark.promise("threads, runs, assistants", reference="served", aegra="served")
async def test_threads_runs_and_assistants(sdk: LangGraphClient) -> None:
    """Threads are found by their metadata, runs by their thread, graphs as assistants; a deleted thread is gone."""
    thread = await sdk.threads.create(metadata={"purpose": "conformance"})
    found = await sdk.threads.search(metadata={"purpose": "conformance"})
    assert thread["thread_id"] in [each["thread_id"] for each in found]
    run = await sdk.runs.create(thread["thread_id"], "counter", input=COUNTED)
    assert [each["run_id"] for each in await sdk.runs.list(thread["thread_id"])] == [run["run_id"]]
    result: Any = await sdk.runs.join(thread["thread_id"], run["run_id"])
    assert result["count"] == COUNTED["steps"]
    assert (await sdk.runs.get(thread["thread_id"], run["run_id"]))["status"] == "success"
    graphs = {each["graph_id"] for each in await sdk.assistants.search(limit=100)}
    assert {"chat", "agent", "approval"} <= graphs
    await sdk.threads.delete(thread["thread_id"])
    assert await sdk.threads.search(metadata={"purpose": "conformance"}) == []


@pytest.mark.promise("POST /threads/{t}/runs/stream, /runs/wait", reference="not recorded", aegra="not recorded")
def test_the_blocking_client_runs(sync_sdk: SyncLangGraphClient) -> None:
    """The blocking client streams and waits as the asynchronous one does."""

    def flow() -> tuple[str, Any]:
        thread_id = sync_sdk.threads.create()["thread_id"]
        parts = list(sync_sdk.runs.stream(thread_id, "chat", input=HELLO, stream_mode="messages-tuple"))
        waited: Any = sync_sdk.runs.wait(thread_id, "chat", input=HELLO)
        data: list[Any] = [part.data for part in parts if part.event == "messages"]
        return "".join(each[0]["content"] for each in data), waited

    text, waited = within(flow)
    assert text == CHAT
    assert len(waited["messages"]) == 4
