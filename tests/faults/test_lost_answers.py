"""The broker has stored what a service said, and its answer is lost, as when the leader of a stream dies behind it.

The connection stays whole, so that everything else goes on meanwhile. Each kind of publish loses its answer once in the
life of a thread, which nobody who uses the thread may notice, save that it takes longer. Two kinds are tried in each
run of the tests, others each day; `FAULT_TRIALS=200` tries all.
"""

import asyncio
import functools
import os
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from testkit.client import Client, Frame, new_thread
from testkit.proxy import Proxy
from testkit.stack import Stack
from testkit.wait import until

DEADLINE_S: Final = 120
LONG: Final = {"steps": 10_000, "delay_s": 0.01}
SAID: Final = (
    "thread_created", "thread_patched", "run_created", "run_started", "run_ended", "run_cancel_requested",
    "run_rolled_back", "run_deleted", "state_updated", "thread_deleted", "HPUB leases.", "HPUB threads.", "HPUB work.",
)  # fmt: skip
"""Words of a publish that tell it from others: the transition that it makes, or the family of its subject."""
EACH_RUN: Final = 2
TURN: Final = int(os.environ.get("FAULT_SEED", "0")) or datetime.now(UTC).toordinal()
TRIED: Final = (
    SAID
    if int(os.environ.get("FAULT_TRIALS", "20")) >= 200
    else [SAID[(EACH_RUN * TURN + each) % len(SAID)] for each in range(EACH_RUN)]
)


@pytest.mark.parametrize("said", TRIED)
async def test_nobody_notices_that_an_answer_is_lost(stack: Stack, said: str) -> None:
    async with Proxy(stack.nats_url) as proxy, asyncio.timeout(DEADLINE_S):
        await asyncio.to_thread(lambda: stack.start(nats_url=proxy.url))
        async with Client(stack.url) as client:
            proxy.lose_answer_to = said.encode()
            await _live(client, new_thread())
        assert proxy.lost_answers == 1


async def _live(client: Client, thread_id: str) -> None:
    """A thread's life, in which everything that can be said of it is."""
    http, path = client.http, f"/threads/{thread_id}"
    assert (await http.post("/threads", json={"thread_id": thread_id})).status_code == 200
    assert (await http.patch(path, json={"metadata": {"stage": 2}})).json()["metadata"]["stage"] == 2

    asking = await client.start(thread_id, "approval", {"amount": 1})
    (asked,) = [each for each in await client.run_events(thread_id) if each.event == "input.requested"]
    answer = {"interrupt_id": asked.body["params"]["data"]["interrupt_id"], "namespace": [], "response": "yes"}
    answering = (await client.command(thread_id, "input.respond", **answer))["result"]["run_id"]
    await client.run_events(thread_id, ends=2)
    assert (await http.get(f"{path}/state")).json()["values"]["result"] == "refunded"
    placed = await http.post(f"{path}/state", json={"values": {"amount": 9}, "as_node": "act"})
    assert placed.is_success, placed.text
    assert (await http.get(f"{path}/state")).json()["values"]["amount"] == 9

    runs = [asking, answering]
    for action in ("interrupt", "rollback"):
        runs.append(await client.start(thread_id, "counter", LONG))
        await until(functools.partial(_is_running, client, f"{path}/runs/{runs[-1]}"), what="the run executes")
        stopped = await http.post(f"{path}/runs/{runs[-1]}/cancel", params={"wait": "true", "action": action})
        assert stopped.is_success, stopped.text
    assert (await http.delete(f"{path}/runs/{asking}")).status_code == 204
    listed = (await http.get(f"{path}/runs")).json()
    assert {each["run_id"]: each["status"] for each in listed} == {answering: "success", runs[2]: "interrupted"}

    whole = await client.run_events(thread_id, ends=4)
    assert [each.seq for each in whole] == sorted({each.seq for each in whole})
    assert _roots(whole) == [
        (run_id, event)
        for run_id, end in zip(runs, ("interrupted", "completed", "interrupted", "interrupted"), strict=True)
        for event in ("running", end)
    ]
    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).status_code == 404


async def _is_running(client: Client, run: str) -> bool:
    return bool((await client.http.get(run)).json()["status"] == "running")


def _roots(frames: list[Frame]) -> list[tuple[str, str]]:
    """The run and the event of each root lifecycle frame."""
    found: list[dict[str, Any]] = [each.body for each in frames if each.event == "lifecycle"]
    return [
        (each["event_id"].split(":")[1], each["params"]["data"]["event"])
        for each in found
        if not each["params"]["namespace"]
    ]
