"""What a webhook is told: of every kind of run, and in JSON that any receiver reads, whatever the graph says."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from langgraph_sdk import get_client

from testkit.client import new_thread
from testkit.receiver import Delivery, Receiver
from testkit.stack import REPOSITORY, Stack
from testkit.wait import until

GRAPHS: Final[Path] = REPOSITORY / "tests" / "testkit" / "graphs" / "langgraph.json"
COUNT: Final = {"steps": 1, "delay_s": 0}
DEADLINE_S: Final = 60.0
ROW: Final = {
    "run_id", "thread_id", "assistant_id", "created_at", "updated_at", "status", "metadata", "kwargs",
    "multitask_strategy", "run_started_at", "run_ended_at", "webhook_sent_at", "values",
}  # fmt: skip
LARGE: Final = "x" * 4_000_000
KINDS: Final = (
    "nan",
    "nul",
    "surrogate",
    "escapes",
    "bytes",
    "decimal",
    "times",
    "keys",
    "nul_key",
    "long_key",
    "deep",
)


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def read(delivery: Delivery) -> Any:
    """The body as a strict receiver reads it."""
    return json.loads(delivery.body.decode(), parse_constant=no_constant)


async def told(receiver: Receiver, run_ids: list[str]) -> dict[str, Any]:
    """What was said of each run, once all of them are."""

    said: dict[str, Any] = {}
    read_so_far = 0

    def all_are() -> bool:
        nonlocal read_so_far
        for each in receiver.deliveries[read_so_far:]:
            body, read_so_far = read(each), read_so_far + 1
            said[body["run_id"]] = body
        return said.keys() >= set(run_ids)

    await until(all_are, DEADLINE_S)
    return said


@pytest.fixture
async def posting(stack: Stack) -> Stack:
    """A stack on the test graphs whose webhooks may go to this machine."""
    stack.config = GRAPHS
    stack.settings = {"slipstream_webhook_allow_private": "1"}
    await asyncio.to_thread(stack.start)
    return stack


async def test_every_kind_of_run_has_a_webhook(posting: Stack) -> None:
    sdk = get_client(url=posting.url)
    async with Receiver() as receiver, httpx.AsyncClient(base_url=posting.url, timeout=DEADLINE_S) as http:
        body = {"assistant_id": "counter", "input": COUNT, "webhook": receiver.url, "if_not_exists": "create"}
        made: list[str] = []
        for path in (f"/threads/{new_thread()}/runs", "/runs"):
            made.append((await http.post(path, json=body)).json()["run_id"])
            for way in ("stream", "wait"):
                answer = await http.post(f"{path}/{way}", json=body)
                made.append(answer.headers["content-location"].rpartition("/")[2])
        made += [run["run_id"] for run in (await http.post("/runs/batch", json=[body, body])).json()]
        later = await http.post(f"/threads/{new_thread()}/runs", json={**body, "after_seconds": 1})
        made.append(later.json()["run_id"])
        kept = new_thread()
        await sdk.threads.create(thread_id=kept)
        crons: list[Any] = [
            await sdk.crons.create("counter", schedule="* * * * * *", input=COUNT, webhook=receiver.url),
            await sdk.crons.create_for_thread(
                kept, "counter", schedule="* * * * * *", input=COUNT, webhook=receiver.url
            ),
        ]
        said = await told(receiver, made)
        for run_id in made:
            assert (said[run_id].keys(), said[run_id]["status"]) == (ROW, "success")
            assert said[run_id]["values"]["count"] >= 1

        def of_crons() -> set[str]:
            return {read(each)["metadata"].get("cron_id", "") for each in receiver.deliveries}

        await until(lambda: of_crons() >= {cron["cron_id"] for cron in crons}, DEADLINE_S)
        for cron in crons:
            await sdk.crons.delete(cron["cron_id"])


async def test_a_question_and_a_failure_are_told(posting: Stack) -> None:
    sdk = get_client(url=posting.url)
    async with Receiver() as receiver:
        thread_id = new_thread()
        hook: dict[str, Any] = {"webhook": receiver.url, "if_not_exists": "create"}
        asked = await sdk.runs.create(thread_id, "approval", input={"amount": 7}, **hook)
        await sdk.runs.join(thread_id, asked["run_id"])
        done = await sdk.runs.create(thread_id, "approval", command={"resume": "yes"}, webhook=receiver.url)
        failed = await sdk.runs.create(new_thread(), "boom", input={"messages": []}, **hook)
        said = await told(receiver, [asked["run_id"], done["run_id"], failed["run_id"]])
    first, second, third = (said[run["run_id"]] for run in (asked, done, failed))
    # As in the run's row: who wants the question reads the thread.
    assert (first["status"], first["values"]) == ("success", {"amount": 7})
    assert (second["status"], second["values"]["result"]) == ("success", "refunded")
    assert (third["status"], third["error"]["error"]) == ("error", "ValueError")
    assert third["values"]["messages"][0]["content"] == "Dinner is nearly ready."


async def test_odd_and_large_values_are_told_as_the_thread_shows_them(posting: Stack) -> None:
    sdk = get_client(url=posting.url)
    given: dict[str, Any] = {"n": 2**53 + 1, "f": 1e-300, "text": "ünï \u2028 😀 \u0000", "none": None, "empty": {}}
    async with Receiver() as receiver:
        hook: dict[str, Any] = {"webhook": receiver.url, "if_not_exists": "create"}
        made: dict[str, Any] = {}
        for kind in KINDS:
            made[kind] = await sdk.runs.create(new_thread(), "odd", input={"kind": kind, "way": "state"}, **hook)
        for kind in ("nul", "surrogate"):
            way = {"kind": kind, "way": "error"}
            made[f"error {kind}"] = await sdk.runs.create(new_thread(), "odd", input=way, **hook)
        said_so: dict[str, Any] = {"metadata": {"ключ": [given]}, "config": {"configurable": {"given": given}}}
        made["given"] = await sdk.runs.create(new_thread(), "odd", input={"odd": given}, **said_so, **hook)
        made["large"] = await sdk.runs.create(new_thread(), "odd", input={"odd": LARGE}, **hook)
        said = await told(receiver, [run["run_id"] for run in made.values()])
    for kind, run in made.items():
        body = said[run["run_id"]]
        thread: Any = await sdk.threads.get(run["thread_id"])
        assert (body["values"], body.get("error")) == (thread["values"], thread["error"]), kind
        assert body["kwargs"] == run["kwargs"], kind
        assert body["status"] == ("error" if kind.startswith("error") else "success"), kind
    body = said[made["given"]["run_id"]]
    clean = {**given, "text": "ünï \u2028 😀 \ufffd"}
    assert body["values"]["odd"] == clean
    assert (body["metadata"]["ключ"], body["kwargs"]["config"]["configurable"]["given"]) == ([clean], clean)
    assert said[made["nan"]["run_id"]]["values"]["odd"] == {"inner": [None, None, None]}
    assert said[made["large"]["run_id"]]["values"]["odd"] == LARGE
