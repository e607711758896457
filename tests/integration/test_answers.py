"""Answers to what a graph asks: by `input.respond`, by a start on a thread that waits, and by nobody."""

import asyncio
from typing import Any

import pytest

from testkit.client import Client, Frame, new_thread
from testkit.stack import Stack
from testkit.wait import until

UNKNOWN = "1f0a4c5e-0000-6000-8000-000000000000"


async def asked(client: Client, graph: str = "panel", graph_input: Any = None) -> tuple[str, list[str], list[Frame]]:
    """A thread that waits, what it asks, and its events."""
    thread_id = new_thread()
    await client.start(thread_id, graph, {} if graph_input is None else graph_input)
    seen = await client.run_events(thread_id)
    return thread_id, [data["interrupt_id"] for data in data_of(seen, "input.requested")], seen


def data_of(frames: list[Frame], method: str) -> list[Any]:
    return [frame.body["params"]["data"] for frame in frames if frame.event == method]


async def state_of(client: Client, thread_id: str) -> Any:
    """The thread's newest state."""
    return (await client.http.get(f"/threads/{thread_id}/state")).json()


async def is_held(client: Client, thread_id: str) -> bool:
    """Whether the answer has kept a task busy, and another task has come to its end."""
    seen = (await client.http.post(f"/threads/{thread_id}/history", json={"limit": 1})).json()
    done = [task for task in seen[0]["tasks"] if task["result"] is not None]
    async with client.events(thread_id, channels=["custom:held"]) as stream:
        async for frame in stream:
            return bool(done) and frame.event == "custom"
    return False


async def respond(client: Client, thread_id: str, interrupt_id: str, response: Any, **params: Any) -> str:
    """The error of an answer, empty for one that was taken."""
    said = {"interrupt_id": interrupt_id, "response": response, **params}
    return str((await client.command(thread_id, "input.respond", **said)).get("error", ""))


async def test_a_start_takes_the_question_that_it_answers(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, (question, *_), _ = await asked(client, "approval", {"amount": 1})
        starts = (client.start(thread_id, "approval", {"amount": n}) for n in (2, 3))
        answers = (respond(client, thread_id, question, n) for n in range(4))
        _, _, *refusals = await asyncio.gather(*starts, *answers)
        accepted = refusals.count("")
        assert accepted <= 1 and refusals.count("no_such_interrupt") == len(refusals) - accepted
        seen = await client.run_events(thread_id, ends=3 + accepted)
        answered = [data["interrupt_id"] for data in data_of(seen, "input.responded")]
        assert answered.count(question) == 1 and len(answered) == len(set(answered))


async def test_two_starts_on_a_waiting_thread_are_one_answer_and_one_turn(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, _, _ = await asked(client, "approval", {"amount": 1})
        first = await client.start(thread_id, "approval", "yes")
        await client.start(thread_id, "approval", {"amount": 2})
        seen = await client.run_events(thread_id, ends=3)
        answered = [frame.body for frame in seen if frame.event == "input.responded"]
        assert [body["event_id"].split(":")[0] for body in answered] == [first]
        assert data_of(seen, "values")[-1]["amount"] == 2


async def test_a_start_without_input_asks_again(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, questions, _ = await asked(client)
        await client.start(thread_id, "panel", None)
        seen = await client.run_events(thread_id, ends=2)
        assert not data_of(seen, "input.responded")
        assert [data["interrupt_id"] for data in data_of(seen, "input.requested")] == questions * 2
        assert await respond(client, thread_id, questions[0], "yes") == ""


async def test_a_fork_of_a_waiting_thread_is_no_answer(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, _, seen = await asked(client, graph_input={"answers": ["first"]})
        begin = data_of(seen, "checkpoints")[0]["id"]
        config = {"configurable": {"checkpoint_id": begin}}
        await client.start(thread_id, "panel", {"answers": ["other"]}, config=config)
        behind = (await client.run_events(thread_id, ends=2))[len(seen) :]
        assert not data_of(behind, "input.responded")
        assert data_of(behind, "values")[-1]["answers"] == ["other"]
        assert data_of(behind, "checkpoints")[0]["parent_id"] == begin
        assert len(data_of(behind, "input.requested")) == 2
        for unknown in (UNKNOWN, "x"):
            nowhere = {"configurable": {"checkpoint_id": unknown}}
            refused = await client.command(
                thread_id, "run.start", assistant_id="panel", input={"answers": []}, config=nowhere
            )
            assert refused["error"] == "no_such_checkpoint"
        wrong = {"configurable": {"checkpoint_id": 5}}
        refused = await client.command(thread_id, "run.start", assistant_id="panel", input={}, config=wrong)
        assert refused["error"] == "invalid_argument"
        assert len((await client.http.get(f"/threads/{thread_id}/runs")).json()) == 2


async def test_a_start_that_might_answer_several_is_refused(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, questions, _ = await asked(client)
        refused = await client.command(thread_id, "run.start", assistant_id="panel", input="yes")
        assert refused["error"] == "invalid_argument"
        await client.start(thread_id, "panel", dict.fromkeys(questions, "yes"))
        seen = await client.run_events(thread_id, ends=2)
        assert sorted(data_of(seen, "values")[-1]["answers"]) == ["left=yes", "right=yes"]
        assert len((await client.http.get(f"/threads/{thread_id}/runs")).json()) == 2


@pytest.mark.parametrize("goto", [5, {}, {"nod": "left"}, {"node": 1}, ["left", 2]])
async def test_a_goto_that_is_none_is_refused_and_the_question_stays(live: Stack, goto: Any) -> None:
    async with Client(live.url) as client:
        thread_id, questions, _ = await asked(client)
        assert await respond(client, thread_id, questions[0], "yes", goto=goto) == "invalid_argument"
        assert await respond(client, thread_id, questions[0], "yes") == ""


async def test_a_question_stays_open_beside_an_answer_that_fails(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, _, seen = await asked(client, "moody_panel")
        by_side = {data["value"]["question"]: data["interrupt_id"] for data in data_of(seen, "input.requested")}
        assert await respond(client, thread_id, by_side["left?"], "no") == ""
        await client.run_events(thread_id, ends=2)
        row = (await client.http.get(f"/threads/{thread_id}")).json()
        assert row["status"] == "error"
        (waiting,) = [each for some in row["interrupts"].values() for each in some]
        assert waiting == {"id": by_side["right?"], "value": {"question": "right?"}}
        assert await respond(client, thread_id, by_side["left?"], "yes") == "no_such_interrupt"
        assert await respond(client, thread_id, by_side["right?"], "yes") == ""
        seen = await client.run_events(thread_id, ends=3)
        assert sorted(data_of(seen, "values")[-1]["answers"]) == ["left=no", "right=yes"]


async def test_a_rolled_back_answer_was_never_given(live: Stack) -> None:
    """Neither the answers of the run nor what its tasks made of them is left: all of it is asked again."""
    async with Client(live.url) as client:
        thread_id, questions, _ = await asked(client, "reluctant_panel")
        before = await state_of(client, thread_id)
        values = {each["id"]: each["value"]["question"] for each in before["interrupts"]}
        assert set(values) == set(questions)
        answers = [{"interrupt_id": id, "response": "slow", "namespace": []} for id in questions]
        answered = await client.command(thread_id, "input.respond", responses=answers)
        run_id = answered["result"]["run_id"]
        await until(lambda: is_held(client, thread_id))
        stopping = {"wait": "true", "action": "rollback"}
        assert (
            await client.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel", params=stopping)
        ).status_code == 200
        seen = await client.run_events(thread_id, ends=2)
        assert [data["interrupt_id"] for data in data_of(seen, "input.requested")] == questions * 2
        assert await state_of(client, thread_id) == before
        row = (await client.http.get(f"/threads/{thread_id}")).json()
        assert row["status"] == "interrupted"
        assert {each["id"] for some in row["interrupts"].values() for each in some} == set(questions)

        for question in questions:
            assert await respond(client, thread_id, question, values[question].upper()) == ""
        seen = await client.run_events(thread_id, ends=4)
        assert sorted(data_of(seen, "values")[-1]["answers"]) == ["left=LEFT?", "right=RIGHT?"]


async def test_a_run_that_rolls_an_answer_back_may_give_another(live: Stack) -> None:
    async with Client(live.url) as client:
        thread_id, _, _ = await asked(client, "reluctant_panel")
        before = await state_of(client, thread_id)
        by_side = {each["value"]["question"]: each["id"] for each in before["interrupts"]}
        body = {"assistant_id": "reluctant_panel", "multitask_strategy": "rollback"}
        slow = {"resume": dict.fromkeys(by_side.values(), "slow")}
        assert (await client.http.post(f"/threads/{thread_id}/runs", json=body | {"command": slow})).status_code == 200
        await until(lambda: is_held(client, thread_id))
        quick = {"resume": {by_side["left?"]: "quick", by_side["right?"]: "late"}}
        ended = await client.http.post(f"/threads/{thread_id}/runs/wait", json=body | {"command": quick})
        assert sorted(ended.json()["answers"]) == ["left=quick", "right=late"]
        row = (await client.http.get(f"/threads/{thread_id}")).json()
        assert (row["status"], row["interrupts"]) == ("idle", {})
