"""`threads.stream`: values, messages, output, failures and cancelling, asynchronous and blocking."""

import asyncio
from typing import Any, Literal

import pytest
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from testkit.sdk import DEADLINE_S, HELLO, all_of, text_of, texts_of, within
from testkit.wait import until

Transport = Literal["sse", "websocket"]
CHAT = "You said: hello. That was message 1 of our conversation, and the log keeps every word."
VERSES = ["one two three four five six", "uno due tre quattro cinque sei"]
COMPLAINT = "boom: the stove is on fire"
SHORT_RUNS = 50
CLOSE_DEADLINE_S = 10


@pytest.mark.promise("values", reference="sent", aegra="sent")
async def test_values_lead_to_the_final_state(sdk: LangGraphClient, transport: Transport) -> None:
    """Iterating `values` ends with the run, and its last item is the run's final state."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="chat", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        values = await all_of(thread.values)
        output: Any = await thread.output
    assert values[-1]["messages"][-1]["content"] == CHAT
    assert [each["content"] for each in output["messages"]] == ["hello", CHAT]


@pytest.mark.promise("messages", reference="sent", aegra="sent")
async def test_a_message_grows_token_by_token(sdk: LangGraphClient, transport: Transport) -> None:
    """Iterating `messages` yields each message when it begins, and its tokens make its text."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="chat", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        reading: list[asyncio.Task[list[Any]]] = []
        async for message in thread.messages:
            # In a task: the SDK feeds a message only while its projection is iterated.
            reading.append(asyncio.create_task(all_of(message.text)))
        (tokens,) = await asyncio.gather(*reading)
    assert len(tokens) > 10 and "".join(tokens) == CHAT


@pytest.mark.promise("message-start", reference="its deltas carry no id, so the SDK drops tokens", aegra="not recorded")
async def test_two_messages_at_once_are_told_apart(sdk: LangGraphClient, transport: Transport) -> None:
    """The interleaved tokens of two messages in one node arrive in the message that they belong to."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="duet", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        assert sorted(await texts_of(thread.messages)) == VERSES


@pytest.mark.promise("run.start", reference="not recorded", aegra="not recorded")
async def test_output_of_a_fresh_thread(sdk: LangGraphClient, transport: Transport) -> None:
    """`output` of a thread that the run creates is the run's final state, however short the run."""
    async with asyncio.timeout(DEADLINE_S):
        for steps in range(1, 11):
            async with sdk.threads.stream(assistant_id="counter", transport=transport) as thread:
                await thread.run.start(input={"steps": steps, "delay_s": 0.0})
                output: Any = await thread.output
                assert output["count"] == steps


@pytest.mark.promise(
    "run.start",
    reference="replays the whole thread to the SDK's watcher",
    aegra="replays the whole thread to the SDK's watcher",
)
async def test_output_of_a_used_thread(sdk: LangGraphClient, transport: Transport) -> None:
    """`output` after `run.start` on a used thread is that run's final state, not that of the run before."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    async with asyncio.timeout(DEADLINE_S):
        for steps in range(1, SHORT_RUNS + 1):
            async with sdk.threads.stream(thread_id, assistant_id="counter", transport=transport) as thread:
                await thread.run.start(input={"steps": steps, "delay_s": 0.0})
                output: Any = await thread.output
                assert output["count"] == steps


@pytest.mark.promise("run.start", reference="not recorded", aegra="not recorded")
async def test_output_of_a_finished_thread(sdk: LangGraphClient, transport: Transport) -> None:
    """`output` of a thread whose runs are over is its state, without a new run."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "counter", input={"steps": 3, "delay_s": 0.0})
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(thread_id, assistant_id="counter", transport=transport) as thread,
    ):
        output: Any = await thread.output
        assert output["count"] == 3


@pytest.mark.promise(
    "updates, checkpoints, tasks",
    reference="not sent, unless the graph registers transformers",
    aegra="updates and checkpoints; tasks never",
)
async def test_projections_interleave_in_the_order_of_the_log(sdk: LangGraphClient, transport: Transport) -> None:
    """Values, updates, checkpoints, tasks and messages of one run arrive in one order, each in full."""
    names = ["values", "updates", "checkpoints", "tasks", "messages"]
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="chat", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        seen: list[tuple[str, Any]] = [item async for item in thread.interleave_projections(names)]
        texts = [await text_of(item) for name, item in seen if name == "messages"]
    kinds = [name for name, _ in seen]
    assert set(kinds) == set(names)
    assert kinds.index("messages") < kinds.index("updates") < len(kinds) - 1 - kinds[::-1].index("values")
    assert texts == [CHAT]
    assert [item["node"] for name, item in seen if name == "updates"] == ["chat"]


@pytest.mark.promise("lifecycle failed", reference="the text", aegra="masked: ValueError: execution failed")
async def test_a_failed_run_says_why(sdk: LangGraphClient, transport: Transport) -> None:
    """A run that fails in a node raises from `output` with the node's text, and what it said before stays."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="boom", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        assert await texts_of(thread.messages) == ["Dinner is nearly ready."]
        with pytest.raises(RuntimeError, match=COMPLAINT):
            await thread.output
    assert (await sdk.threads.get(thread.thread_id))["status"] == "error"


@pytest.mark.promise("lifecycle interrupted", reference="same", aegra="same, but the thread is idle")
async def test_a_cancelled_run_ends_on_the_wire(sdk: LangGraphClient, transport: Transport) -> None:
    """Cancelling a run ends it with `interrupted` in the stream and in the run's row."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="counter", transport=transport) as thread:
        run = await thread.run.start(input={"steps": 10_000, "delay_s": 0.01})
        async for event in thread.subscribe(["values", "lifecycle"]):
            data: Any = event["params"]["data"]
            if event["method"] == "values" and data.get("count", 0) == 1:
                await sdk.runs.cancel(thread.thread_id, run["run_id"])
            if event["method"] == "lifecycle" and data["event"] == "interrupted":
                break
    assert (await sdk.runs.get(thread.thread_id, run["run_id"]))["status"] == "interrupted"


@pytest.mark.promise(
    "POST /threads/{t}/runs/{r}/cancel",
    reference="202; the thread is interrupted",
    aegra="200 with the run; the thread is idle",
)
async def test_cancelling_a_run_and_the_one_that_waits(sdk: LangGraphClient) -> None:
    """A running and a waiting run both end as `interrupted`, and the thread serves again."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    run = await sdk.runs.create(thread_id, "counter", input={"steps": 10_000, "delay_s": 0.05})
    waiting = await sdk.runs.create(thread_id, "counter", input={"steps": 1})

    async def has_begun() -> bool:
        return (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "running"

    await until(has_begun)
    await sdk.runs.cancel(thread_id, waiting["run_id"])
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    statuses = {each["run_id"]: each["status"] for each in await sdk.runs.list(thread_id)}
    assert statuses == {run["run_id"]: "interrupted", waiting["run_id"]: "interrupted"}


@pytest.mark.promise("run.start", reference="unknown_error 422", aegra="no_such_run")
async def test_an_unknown_assistant_is_refused(sdk: LangGraphClient, transport: Transport) -> None:
    """`run.start` of an assistant that does not exist raises at once."""
    # Closed when its watcher is just being answered, the SDK may wait for that for ever: `wait_for` of Python 3.11 can
    # lose a cancel. A deadline ends it.
    unknown = sdk.threads.stream(assistant_id="nobody", transport=transport)
    async with asyncio.timeout(CLOSE_DEADLINE_S), unknown as thread:
        with pytest.raises(RuntimeError, match="no_such_run"):
            await thread.run.start(input=HELLO)


@pytest.mark.promise("values, messages", reference="not recorded", aegra="not recorded")
def test_the_blocking_client_streams(sync_sdk: SyncLangGraphClient, transport: Transport) -> None:
    """The blocking client's `values`, `messages` and `output` say what the asynchronous one's do."""

    def flow() -> tuple[list[str], Any, Any]:
        with sync_sdk.threads.stream(assistant_id="chat", transport=transport) as thread:
            thread.run.start(input=HELLO)
            texts = [str(message.text) for message in thread.messages]
            output: Any = thread.output
        with sync_sdk.threads.stream(thread.thread_id, assistant_id="chat", transport=transport) as again:
            again.run.start(input=HELLO)
            return texts, output, list(again.values)[-1]

    texts, output, last = within(flow)
    assert texts == [CHAT]
    assert output["messages"][-1]["content"] == CHAT
    assert len(last["messages"]) == 4


@pytest.mark.promise("message-start", reference="not recorded", aegra="not recorded")
def test_the_blocking_client_tells_two_messages_apart(sync_sdk: SyncLangGraphClient, transport: Transport) -> None:
    """With the blocking client too, interleaved tokens arrive in the message that they belong to."""

    def flow() -> list[str]:
        with sync_sdk.threads.stream(assistant_id="duet", transport=transport) as thread:
            thread.run.start(input=HELLO)
            return [str(message.text) for message in list(thread.messages)]

    assert sorted(within(flow)) == VERSES


@pytest.mark.promise("lifecycle failed", reference="the text", aegra="masked: ValueError: execution failed")
def test_the_blocking_client_says_why_a_run_failed(sync_sdk: SyncLangGraphClient, transport: Transport) -> None:
    """A failed run raises from the blocking client's `output` with the node's text."""

    def flow() -> None:
        with sync_sdk.threads.stream(assistant_id="boom", transport=transport) as thread:
            thread.run.start(input=HELLO)
            _ = thread.output

    with pytest.raises(RuntimeError, match=COMPLAINT):
        within(flow)
