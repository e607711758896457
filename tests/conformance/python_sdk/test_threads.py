"""`threads.stream` over a thread's whole life: several runs, other clients, forks, broken connections, long replays."""

import asyncio
from typing import Any, Literal

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from testkit.client import new_thread
from testkit.proxy import Proxy
from testkit.sdk import DEADLINE_S, HELLO, all_of, command, texts_of
from testkit.wait import until

Transport = Literal["sse", "websocket"]
FLOOD = 20_000


@pytest.mark.promise("seq", reference="counts within a connection", aegra="counts within a connection")
async def test_runs_on_one_stream(sdk: LangGraphClient, transport: Transport) -> None:
    """Several runs on one open stream: each shows its own events once, under numbers that rise across the runs."""
    counts, seqs = [], []
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="counter", transport=transport) as thread:
        for steps in (1, 2, 3):
            run = await thread.run.start(input={"steps": steps, "delay_s": 0.0})
            event: Any
            async for event in thread.subscribe(["values", "lifecycle"]):
                seqs.append(event["seq"])
                data: Any = event["params"]["data"]
                if event["method"] == "values":
                    counts.append(data.get("count"))
            await sdk.runs.join(thread.thread_id, run["run_id"])
    assert [count for count in dict.fromkeys(counts) if count] == [1, 2, 3]
    assert seqs == sorted(set(seqs))


@pytest.mark.promise(
    "subscription.subscribe", reference="replays, with timestamps anew", aegra="at most 10,000 events of a run"
)
async def test_a_client_that_comes_later_sees_it_all(sdk: LangGraphClient, transport: Transport) -> None:
    """A client that opens a thread after its runs replays the same events, under the same numbers and ids."""

    async def read(thread_id: str | None = None) -> tuple[str, list[tuple[int, str]]]:
        async with sdk.threads.stream(thread_id, assistant_id="subgraphs", transport=transport) as thread:
            if thread_id is None:
                await thread.run.start(input=HELLO)
            seen: list[tuple[int, str]] = []
            event: Any
            async for event in thread.events:
                if event["type"] != "event":
                    continue
                seen.append((event["seq"], event["event_id"]))
                if event["event_id"].endswith(":lc||completed"):
                    return thread.thread_id, seen
            raise AssertionError("the stream ended before the run")

    async with asyncio.timeout(DEADLINE_S):
        thread_id, live = await read()
        _, late = await read(thread_id)
        _, again = await read(thread_id)
    assert live == late == again
    assert len({event_id for _, event_id in live}) == len(live)


@pytest.mark.promise(
    "subscription.subscribe",
    reference="nothing of a run that protocol v1 started",
    aegra="empty data of a run that protocol v1 started",
)
async def test_projections_of_a_finished_thread(sdk: LangGraphClient, transport: Transport) -> None:
    """On a thread whose run is over, the projections still yield its messages and subgraphs, and then end."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "delegation", input=HELLO)
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(thread_id, assistant_id="delegation", transport=transport) as thread,
    ):
        children = [(child, asyncio.create_task(texts_of(child.messages))) async for child in thread.subgraphs]
        assert sorted([await task for _, task in children]) == [
            ["one two three four five six"],
            ["uno due tre quattro cinque sei"],
        ]


@pytest.mark.promise("subscription.subscribe", reference="not recorded", aegra="not recorded")
async def test_two_clients_at_once(sdk: LangGraphClient, transport: Transport) -> None:
    """Two clients that follow one run see the same values and the same text; one may leave in the middle."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="chat", transport=transport) as first:
        await first.run.start(input=HELLO)
        async with sdk.threads.stream(first.thread_id, assistant_id="chat", transport=transport) as leaver:
            async for _ in leaver.messages:
                break
        async with sdk.threads.stream(first.thread_id, assistant_id="chat", transport=transport) as second:
            ours, theirs = await asyncio.gather(texts_of(first.messages), texts_of(second.messages))
            assert ours == theirs and len(ours) == 1
            assert await first.output == await second.output


@pytest.mark.promise("run.start config.configurable.checkpoint_id", reference="not recorded", aegra="not recorded")
async def test_a_fork(sdk: LangGraphClient, transport: Transport) -> None:
    """A run that starts from an earlier checkpoint goes on from there, not from the thread's newest state."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="chat", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        checkpoints: list[Any] = await all_of(thread.subscribe(["checkpoints"], namespaces=[[]], depth=0))
        ids = {each["params"]["data"]["step"]: each["params"]["data"]["id"] for each in checkpoints}
        again = {"messages": [{"role": "user", "content": "again"}]}
        config = {"configurable": {"checkpoint_id": ids[-1]}}
        run = await thread.run.start(input=again, config=config)
        await sdk.runs.join(thread.thread_id, run["run_id"])
        forked: Any = (await sdk.threads.get_state(thread.thread_id))["values"]
    assert [each["type"] for each in forked["messages"]] == ["human", "ai"]
    assert forked["messages"][0]["content"] == "again"


@pytest.mark.promise("run.start multitaskStrategy reject", reference="enqueued all the same", aegra="always enqueued")
async def test_a_busy_thread_rejects(sdk: LangGraphClient) -> None:
    """`reject` on a busy thread is refused as a conflict, and nothing is created."""
    thread_id = new_thread()
    run = await sdk.runs.create(thread_id, "counter", input={"steps": 10_000, "delay_s": 0.01}, if_not_exists="create")
    refused = await command(
        sdk, thread_id, "run.start", assistant_id="counter", input={"steps": 1}, multitaskStrategy="reject"
    )
    assert refused["type"] == "error" and "409" in refused["message"]
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert [each["run_id"] for each in await sdk.runs.list(thread_id)] == [run["run_id"]]


@pytest.mark.promise(
    "run.start multitaskStrategy interrupt", reference="enqueued all the same", aegra="always enqueued"
)
async def test_a_newer_run_interrupts(sdk: LangGraphClient, transport: Transport) -> None:
    """`interrupt` ends the running run as interrupted, and the new one starts from where it stopped."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="counter", transport=transport) as thread:
        await thread.run.start(input={"steps": 10_000, "delay_s": 0.01})
        ends: list[str] = []
        count = 0
        async for event in thread.subscribe(["values", "lifecycle"], namespaces=[[]], depth=0):
            data: Any = event["params"]["data"]
            if event["method"] == "lifecycle":
                ends.append(data["event"])
            elif data.get("count") and not count:
                count = data["count"]
                stop = {"steps": count + 1, "delay_s": 0.0}
                answer = await command(
                    sdk, thread.thread_id, "run.start",
                    assistant_id="counter", input=stop, multitaskStrategy="interrupt",
                )  # fmt: skip
                assert answer["type"] == "success"
    assert ends == ["running", "interrupted", "running", "completed"]


@pytest.mark.promise("run.start multitaskStrategy rollback", reference="enqueued all the same", aegra="always enqueued")
async def test_a_newer_run_rolls_back(sdk: LangGraphClient) -> None:
    """`rollback` takes back what the running run wrote: the new one starts from the state before it."""
    thread_id = new_thread()
    await sdk.runs.create(thread_id, "counter", input={"steps": 10_000, "delay_s": 0.01}, if_not_exists="create")

    async def has_counted() -> bool:
        values: Any = (await sdk.threads.get_state(thread_id))["values"]
        return bool(values.get("count", 0) > 2)

    await until(has_counted)
    answer = await command(
        sdk, thread_id, "run.start",
        assistant_id="counter", input={"steps": 1, "delay_s": 0.0}, multitaskStrategy="rollback",
    )  # fmt: skip
    output: Any = await sdk.runs.join(thread_id, answer["result"]["run_id"])
    assert output["count"] == 1


@pytest.mark.promise("run.start multitaskStrategy enqueue", reference="in order", aegra="always enqueued")
async def test_runs_wait_for_each_other(sdk: LangGraphClient) -> None:
    """Runs that are started on a busy thread wait, and each begins from the state that the one before it left."""
    thread_id, started = new_thread(), []
    for steps in (3, 4, 5):
        answer = await command(
            sdk, thread_id, "run.start", assistant_id="counter", input={"steps": steps, "delay_s": 0.01}
        )
        started.append(answer["result"]["run_id"])
    outputs: list[Any] = [await sdk.runs.join(thread_id, run_id) for run_id in started]
    assert [output["count"] for output in outputs] == [3, 4, 5]


@pytest.mark.promise("since", reference="not recorded", aegra="skips events once its list of 10,000 has wrapped")
async def test_a_broken_connection_costs_nothing(url: str, transport: Transport) -> None:
    """The SDK's connections break in the middle of a run, twice: it goes on, and nothing is lost or comes twice."""
    steps = 40
    async with (
        asyncio.timeout(DEADLINE_S),
        Proxy(url) as network,
        get_client(url=network.url) as sdk,
        sdk.threads.stream(assistant_id="counter", transport=transport) as thread,
    ):
        await thread.run.start(input={"steps": steps, "delay_s": 0.01})
        counts: list[int] = []
        async for note in thread.extensions["progress"]:
            counts.append(note["payload"]["count"])
            if counts[-1] in (10, 25):
                network.reset()
        output: Any = await thread.output
    assert counts == list(range(1, steps + 1))
    assert output["count"] == steps


@pytest.mark.promise("custom", reference="12,000 of 12,000", aegra="9,996 of 12,000: its list is capped at 10,000")
async def test_a_long_replay_reaches_a_slow_consumer(sdk: LangGraphClient, transport: Transport) -> None:
    """A replay of 20,000 events reaches a consumer that awaits at each, whole and in order, though the SDK's queues are
    short: the server paces this client."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "firehose", input={"count": FLOOD})
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(thread_id, assistant_id="firehose", transport=transport) as thread,
    ):
        numbers: list[int] = []
        async for event in thread.subscribe(["custom"]):
            data: Any = event["params"]["data"]
            numbers.append(data["payload"]["number"])
            await asyncio.sleep(0)
    assert numbers == list(range(FLOOD))
