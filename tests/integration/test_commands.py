"""Commands besides starting and answering: the same over HTTP as over a socket."""

from typing import Any

from testkit.client import Client, new_thread
from testkit.stack import Stack

MESSAGE = {"messages": [{"role": "user", "content": "Lisbon?"}]}


def shape(node: dict[str, Any]) -> Any:
    names = [segment.partition(":")[0] for segment in node["namespace"]]
    return (names, node["graph_name"], node["status"], [shape(each) for each in node["children"]])


async def test_the_tree_of_a_run(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        run_id = await client.start(thread_id, "subgraphs", MESSAGE)
        await client.run_events(thread_id)
        for params in ({}, {"run_id": run_id}):
            answer = await client.command(thread_id, "agent.getTree", **params)
            inner: Any = (["team", "researcher"], "researcher", "completed", [])
            assert shape(answer["result"]["tree"]) == (
                [], "subgraphs", "completed", [(["team"], "team", "completed", [inner])],
            )  # fmt: skip
        assert (await client.command(thread_id, "agent.getTree", run_id="nobody"))["error"] == "no_such_run"
        assert (await client.command(new_thread(), "agent.getTree"))["error"] == "no_such_run"
        await client.start(thread_id, "approval", {"amount": 1})
        await client.run_events(thread_id, ends=2)
        tree = (await client.command(thread_id, "agent.getTree"))["result"]["tree"]
        assert (tree["graph_name"], tree["status"]) == ("approval", "interrupted")


async def test_what_cannot_be_done_says_so(live: Stack) -> None:
    async with Client(live.url) as client:
        inject = {"namespace": [], "message": {"role": "user", "content": "more"}}
        for method, params in (
            ("input.inject", inject),
            ("subscription.subscribe", {"channels": ["values"]}),
            ("subscription.unsubscribe", {"subscription_id": "x"}),
            ("subscription.reconnect", {"run_id": "x"}),
        ):
            answer = await client.command(new_thread(), method, **params)
            assert (answer["type"], answer["error"]) == ("error", "not_supported"), method


async def test_a_run_that_never_began_has_a_beginning_and_an_end(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        first = await client.start(thread_id, "counter", {"steps": 1000, "delay_s": 0.05})
        waiting = await client.start(thread_id, "counter", {"steps": 1})
        await client.http.post(f"/threads/{thread_id}/runs/{waiting}/cancel")
        # Who waits for it is told amid the output of the run that executes, which is no gap.
        await client.http.get(f"/threads/{thread_id}/runs/{waiting}/join")
        superseded = await client.start(thread_id, "counter", {"steps": 1})
        # The rollback takes the running run along, and the one that waits besides.
        last = await client.start(thread_id, "counter", {"steps": 1, "delay_s": 0}, multitaskStrategy="rollback")
        # With `values` besides: a stream of `lifecycle` alone watches, and would begin at the run that executes.
        seen = await client.run_events(thread_id, ends=4, channels=["lifecycle", "values"])
        assert {frame.event for frame in seen} == {"lifecycle", "values"}
        told: dict[str, list[str]] = {}
        for frame in (each for each in seen if each.event == "lifecycle"):
            told.setdefault(frame.body["event_id"].split(":")[1], []).append(frame.body["params"]["data"]["event"])
        assert told == {
            first: ["running", "interrupted"], waiting: ["running", "interrupted"],
            superseded: ["running", "interrupted"], last: ["running", "completed"],
        }  # fmt: skip


async def test_the_state_and_its_checkpoints_and_a_fork(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        await client.start(thread_id, "counter", {"steps": 3, "delay_s": 0})
        seen = await client.run_events(thread_id)
        values = [frame.body["params"]["data"] for frame in seen if frame.event == "values"]
        state = (await client.command(thread_id, "state.get", namespace=[]))["result"]
        assert state["values"] == values[-1]
        some = await client.command(thread_id, "state.get", namespace=[], keys=["count", "nothing"])
        assert some["result"]["values"] == {"count": 3}

        listed = (await client.command(thread_id, "state.listCheckpoints"))["result"]["checkpoints"]
        told = [frame.body["params"]["data"] for frame in seen if frame.event == "checkpoints"]
        assert [each["id"] for each in listed] == [each["id"] for each in reversed(told)]
        assert listed[0]["id"] == state["checkpoint"]["id"]
        assert [each["step"] for each in listed] == [3, 2, 1, 0, -1]
        page = await client.command(thread_id, "state.listCheckpoints", limit=2, before=listed[1]["id"])
        assert page["result"]["checkpoints"] == listed[2:4]

        # From behind the first step, with more to count: steps 2 to 5 are new.
        forked = await client.command(
            thread_id, "state.fork", checkpoint_id=listed[2]["id"], input={"steps": 5, "delay_s": 0}
        )
        assert forked["result"]["thread_id"] == thread_id
        cursor = forked["meta"]["applied_through_seq"]
        behind = await client.run_events(thread_id, since=cursor, channels=["values", "lifecycle"])
        assert behind[0].body["event_id"] == f"synth:{forked['result']['run_id']}:lc||running"
        counts = [frame.body["params"]["data"].get("count") for frame in behind if frame.event == "values"]
        assert counts == [1, 2, 3, 4, 5]


async def test_state_commands_are_refused_by_name(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        unknown: tuple[tuple[str, dict[str, Any]], ...] = (
            ("state.get", {"namespace": []}),
            ("state.listCheckpoints", {}),
            ("state.fork", {"checkpoint_id": "x"}),
        )
        for method, params in unknown:
            answer = await client.command(thread_id, method, **params)
            assert (answer["type"], answer["error"]) == ("error", "no_such_run"), method
        await client.start(thread_id, "counter", {"steps": 1, "delay_s": 0})
        await client.run_events(thread_id)
        wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
            ("state.get", {"namespace": ["nowhere:1"]}, "no_such_namespace"),
            ("state.get", {"namespace": "x"}, "invalid_argument"),
            ("state.listCheckpoints", {"limit": 0}, "invalid_argument"),
            ("state.fork", {"checkpoint_id": "1f0a4c5e-0000-6000-8000-000000000000"}, "no_such_checkpoint"),
            ("state.fork", {}, "invalid_argument"),
        )
        for method, params, code in wrong:
            answer = await client.command(thread_id, method, **params)
            assert (answer["type"], answer["error"]) == ("error", code), (method, answer)
        assert len((await client.http.get(f"/threads/{thread_id}/runs")).json()) == 1


async def test_a_state_is_read_whose_last_step_does_not_go_together(live: Stack) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client:
        await client.start(thread_id, "clash", {"asked": "who"})
        (end,) = (frame for frame in await client.run_events(thread_id) if frame.ends_root)
        assert "InvalidUpdateError" in end.body["params"]["data"]["error"]
        assert (await client.command(thread_id, "state.get"))["result"]["values"] == {"asked": "who"}
        state = (await client.http.get(f"/threads/{thread_id}/state")).raise_for_status().json()
        assert state["next"] == ["left", "right"]
