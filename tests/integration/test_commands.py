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
        # The rollback takes the running run along, and the one that waits besides.
        superseded = await client.start(thread_id, "counter", {"steps": 1})
        last = await client.start(thread_id, "counter", {"steps": 1, "delay_s": 0}, multitaskStrategy="rollback")
        seen = await client.run_events(thread_id, ends=4, channels=["lifecycle"])
        told: dict[str, list[str]] = {}
        for frame in seen:
            told.setdefault(frame.body["event_id"].split(":")[1], []).append(frame.body["params"]["data"]["event"])
        assert told == {
            first: ["running", "interrupted"], waiting: ["running", "interrupted"],
            superseded: ["running", "interrupted"], last: ["running", "completed"],
        }  # fmt: skip
