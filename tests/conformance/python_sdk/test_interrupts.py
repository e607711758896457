"""Humans in the loop: what the SDK shows of an interrupt, and its answers."""

import asyncio
import os
from typing import Any, Final, Literal

import pytest
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from testkit.sdk import DEADLINE_S, HELLO, all_of, command, one_instance, texts_of, within
from testkit.wait import until

Transport = Literal["sse", "websocket"]
REPETITIONS: Final = int(os.environ.get("CONFORMANCE_REPETITIONS", "10"))
SUMMARY = "The refund is due because the parcel never arrived."


async def interrupted(thread: Any, count: int = 1) -> dict[str, Any]:
    """The open interrupts of a stream by their question's first word, once there are that many."""
    await until(lambda: len({each["interrupt_id"] for each in thread.interrupts}) >= count)
    return {str(each["value"]["question"]).split("?")[0]: each for each in thread.interrupts}


@pytest.mark.promise(
    "input.requested", reference="without `value`, so the SDK shows None", aegra="with `value` and `payload`"
)
async def test_an_interrupt_shows_its_question(sdk: LangGraphClient, transport: Transport) -> None:
    """`interrupts` holds the id, the value and the namespace of what the graph asks."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="approval", transport=transport) as thread:
        await thread.run.start(input={"amount": 5})
        await all_of(thread.values)
        assert thread.interrupted
        (asked,) = thread.interrupts
        assert asked["value"] == {"question": "Refund 5?", "answers": ["yes", "no"]}
        assert asked["interrupt_id"] and asked["namespace"] == []


@pytest.mark.promise("input.respond", reference="result {}", aegra="result {run_id}")
async def test_an_answer_resumes_the_run(sdk: LangGraphClient, transport: Transport) -> None:
    """`respond` names the run that goes on, and `output` is the state that the answer led to."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="approval", transport=transport) as thread:
        await thread.run.start(input={"amount": 5})
        await all_of(thread.values)
        answered = await thread.run.respond("no")
        output: Any = await thread.output
        assert output["result"] == "refused"
        assert not thread.interrupted and thread.interrupts == []
        assert answered["run_id"] in {run["run_id"] for run in await sdk.runs.list(thread.thread_id)}


@pytest.mark.promise("input.requested", reference="not recorded", aegra="not recorded")
async def test_an_interrupt_in_a_subgraph_is_answered_in_its_namespace(
    sdk: LangGraphClient, transport: Transport
) -> None:
    """A question of a subgraph carries its namespace, and the SDK's answer in that namespace is taken."""
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(assistant_id="nested_question", transport=transport) as thread,
    ):
        await thread.run.start(input={"answers": []})
        asked = await interrupted(thread)
        assert asked["left"]["namespace"][0].startswith("asker:")
        await thread.run.respond("here")
        output: Any = await thread.output
    assert output["answers"] == ["left=here"]


@pytest.mark.promise(
    "input.requested", reference="asks the open one again under its id", aegra="asks it again only on a new connection"
)
async def test_two_questions_at_once_are_answered_one_by_one(sdk: LangGraphClient, transport: Transport) -> None:
    """Of two parallel interrupts each is answered by its id; after the first answer the other stays open."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="panel", transport=transport) as thread:
        await thread.run.start(input={"answers": []})
        asked = await interrupted(thread, 2)
        with pytest.raises(RuntimeError, match="ambiguous"):
            await thread.run.respond("either")
        first = await thread.run.respond("L", interrupt_id=asked["left"]["interrupt_id"])
        await sdk.runs.join(thread.thread_id, first["run_id"])
        open_now = (await sdk.threads.get(thread.thread_id))["interrupts"]
        assert [each["id"] for task in open_now.values() for each in task] == [asked["right"]["interrupt_id"]]
        await thread.run.respond("R", interrupt_id=asked["right"]["interrupt_id"])
        output: Any = await thread.output
    assert sorted(output["answers"]) == ["left=L", "right=R"]


@pytest.mark.promise("input.respond", reference="not recorded", aegra="not recorded")
async def test_two_answers_need_not_wait_for_each_other(sdk: LangGraphClient, transport: Transport) -> None:
    """The answers to two parallel interrupts may be sent back to back, and both are applied."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="panel", transport=transport) as thread:
        await thread.run.start(input={"answers": []})
        asked = await interrupted(thread, 2)
        await thread.run.respond("L", interrupt_id=asked["left"]["interrupt_id"])
        await thread.run.respond("R", interrupt_id=asked["right"]["interrupt_id"])
        output: Any = await thread.output
    assert sorted(output["answers"]) == ["left=L", "right=R"]


@pytest.mark.promise("input.respond responses", reference="same", aegra="same")
async def test_two_answers_in_one_command(sdk: LangGraphClient, transport: Transport) -> None:
    """`input.respond` with `responses` answers both parallel interrupts with one run."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="panel", transport=transport) as thread:
        await thread.run.start(input={"answers": []})
        asked = await interrupted(thread, 2)
        responses = [
            {"interrupt_id": each["interrupt_id"], "namespace": each["namespace"], "response": word.upper()}
            for word, each in asked.items()
        ]
        command = {"id": 99, "method": "input.respond", "params": {"responses": responses}}
        answer: Any = await sdk.http.post(f"/threads/{thread.thread_id}/commands", json=command)
        assert answer["type"] == "success"
        output: Any = await thread.output
    assert sorted(output["answers"]) == ["left=LEFT", "right=RIGHT"]
    assert len(await sdk.runs.list(thread.thread_id)) == 2


@pytest.mark.promise("input.respond update, goto", reference="update applied", aegra="update silently ignored")
async def test_an_answer_that_updates_and_goes_elsewhere(sdk: LangGraphClient, transport: Transport) -> None:
    """`update` and `goto` of an answer take effect in the superstep that it resumes."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="approval", transport=transport) as thread:
        await thread.run.start(input={"amount": 5})
        (asked,) = (await interrupted(thread)).values()
        reading = asyncio.create_task(all_of(thread.subscribe(["updates"])))
        answer = await command(
            sdk, thread.thread_id, "input.respond",
            interrupt_id=asked["interrupt_id"], response="yes", update={"amount": 50}, goto="act",
        )  # fmt: skip
        assert answer["type"] == "success"
        output: Any = await thread.output
        nodes = [event["params"]["data"]["node"] for event in await reading]
    assert output == {"amount": 50, "approved": True, "result": "refunded"}
    assert (nodes.count("ask"), nodes.count("act")) == (1, 2)


@pytest.mark.promise("input.respond namespace", reference="accepts any namespace", aegra="accepts any namespace")
async def test_an_answer_to_another_namespace_is_refused(sdk: LangGraphClient) -> None:
    """An answer whose namespace is not the question's is refused, and the question stays open."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "approval", input={"amount": 5})
    ((asked,),) = (await sdk.threads.get(thread_id))["interrupts"].values()
    answer = await command(
        sdk, thread_id, "input.respond", interrupt_id=asked["id"], namespace=["elsewhere"], response="yes"
    )
    assert (answer["type"], answer["error"]) == ("error", "no_such_interrupt")
    assert (await sdk.threads.get(thread_id))["status"] == "interrupted"


@pytest.mark.promise(
    "POST /threads/{t}/runs/wait command.resume", reference="each question named twice", aegra="not recorded"
)
async def test_two_answers_by_a_command_of_protocol_v1(sdk: LangGraphClient) -> None:
    """A `resume` keyed by interrupt ids answers parallel interrupts through `runs.wait`."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    asked: Any = await sdk.runs.wait(thread_id, "panel", input={"answers": []})
    resume = {each["id"]: each["value"]["question"].upper() for each in asked["__interrupt__"]}
    assert len(resume) == len(asked["__interrupt__"]) == 2
    done: Any = await sdk.runs.wait(thread_id, "panel", command={"resume": resume})
    assert sorted(done["answers"]) == ["left=LEFT?", "right=RIGHT?"]


@pytest.mark.promise(
    "input.respond", reference="success for both, the second run is empty", aegra="success for both, the last one wins"
)
async def test_a_question_is_answered_once(sdk: LangGraphClient, transport: Transport) -> None:
    """Of two clients that answer the same interrupt one is told that it is not open any more."""
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(assistant_id="approval", transport=transport) as thread,
    ):
        await thread.run.start(input={"amount": 5})
        await interrupted(thread)
        both = await asyncio.gather(thread.run.respond("yes"), thread.run.respond("no"), return_exceptions=True)
    refused = [str(answer) for answer in both if isinstance(answer, Exception)]
    assert len(refused) == 1 and "no_such_interrupt" in refused[0]


@pytest.mark.promise("input.requested", reference="nothing of a run that protocol v1 started", aegra="not recorded")
async def test_another_client_finds_the_open_question(sdk: LangGraphClient, transport: Transport) -> None:
    """A stream that is opened on a waiting thread learns of the open interrupt and may answer it."""
    thread_id = str((await sdk.threads.create())["thread_id"])
    await sdk.runs.wait(thread_id, "approval", input={"amount": 5})
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(thread_id, assistant_id="approval", transport=transport) as thread,
    ):
        assert "Refund 5" in await interrupted(thread)
        await thread.run.respond("yes")
        output: Any = await thread.output
    assert output["result"] == "refunded"


@pytest.mark.promise("input.requested", reference="not recorded", aegra="not recorded")
async def test_one_question_after_the_other(sdk: LangGraphClient, transport: Transport) -> None:
    """A run that asks again after an answer is answered again, and ends."""
    async with (
        asyncio.timeout(DEADLINE_S),
        sdk.threads.stream(assistant_id="two_questions", transport=transport) as thread,
    ):
        await thread.run.start(input={"answers": []})
        asked = await interrupted(thread)
        await thread.run.respond("L")
        asked = await interrupted(thread, 2)
        await thread.run.respond("R", interrupt_id=asked["right"]["interrupt_id"])
        output: Any = await thread.output
    assert output["answers"] == ["left=L", "right=R"]


@pytest.mark.promise("run.start", reference="resumes with the input", aegra="resumes with the input")
async def test_a_start_on_a_waiting_thread_is_the_answer(sdk: LangGraphClient, transport: Transport) -> None:
    """`run.start` with input on a thread that waits resumes it with that input."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="approval", transport=transport) as thread:
        await thread.run.start(input={"amount": 5})
        await interrupted(thread)
        await thread.run.start(input="yes")
        output: Any = await thread.output
    assert output["result"] == "refunded"


async def sign_once(sdk: LangGraphClient, transport: Transport) -> None:
    """The whole flow: read all that comes before the question, answer it, read all that comes behind it."""
    async with asyncio.timeout(DEADLINE_S), sdk.threads.stream(assistant_id="briefing", transport=transport) as thread:
        await thread.run.start(input=HELLO)
        drafts = asyncio.create_task(all_of(thread.extensions["draft"]))
        texts, values = await asyncio.gather(texts_of(thread.messages), all_of(thread.values))
        assert texts == [SUMMARY], "the message before the question is whole"
        assert [each["payload"]["number"] for each in await drafts] == [0, 1, 2, 3, 4]
        assert values[-1]["messages"][-1]["content"] == SUMMARY, "the state before the question was shown"
        assert thread.interrupted
        later = asyncio.gather(all_of(thread.extensions["draft"]), texts_of(thread.messages))
        await thread.run.respond("Ada")
        output: Any = await thread.output
        more, texts = await later
        assert [each["payload"]["number"] for each in more] == [5]
        assert SUMMARY in texts
    assert [each["content"] for each in output["messages"]] == ["hello", SUMMARY, "Signed by Ada", SUMMARY]


@one_instance
@pytest.mark.promise("input.requested", reference="not recorded", aegra="not recorded")
async def test_nothing_is_cut_off_around_a_question(sdk: LangGraphClient, transport: Transport) -> None:
    """What a graph streams right before it asks arrives in full before the SDK's iterators end, every time."""
    for _ in range(REPETITIONS):
        await sign_once(sdk, transport)


@pytest.mark.promise("input.respond", reference="not recorded", aegra="not recorded")
def test_the_blocking_client_answers(sync_sdk: SyncLangGraphClient, transport: Transport) -> None:
    """The blocking client's iteration ends at the question, `respond` answers it, and `output` follows."""

    def flow() -> tuple[Any, Any]:
        with sync_sdk.threads.stream(assistant_id="approval", transport=transport) as thread:
            thread.run.start(input={"amount": 8})
            list(thread.values)
            (asked,) = thread.interrupts
            thread.run.respond("yes")
            return asked, thread.output

    asked, output = within(flow)
    assert asked["value"]["question"] == "Refund 8?"
    assert output["result"] == "refunded"
