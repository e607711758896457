"""The unmodified Python SDK's crons client against a running server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient

from testkit.client import new_thread
from testkit.stack import Stack
from testkit.wait import until

COUNT: dict[str, Any] = {"steps": 1, "delay_s": 0.01}
YEARLY, EVERY_SECOND = "0 0 1 1 *", "* * * * * *"


def client(live: Stack) -> LangGraphClient:
    """A client of the running stack."""
    return get_client(url=live.url)


async def test_a_cron_is_created_found_changed_and_deleted(live: Stack) -> None:
    sdk = client(live)
    made: Any = await sdk.crons.create(
        "counter", schedule="0 9 * * *", input=COUNT, metadata={"purpose": "crud"}, timezone="America/New_York",
        end_time=datetime(2099, 1, 1, tzinfo=UTC), multitask_strategy="reject",
    )  # fmt: skip
    cron_id = made["cron_id"]
    assert (made["schedule"], made["timezone"], made["enabled"]) == ("0 9 * * *", "America/New_York", True)
    assert (made["thread_id"], made["on_run_completed"]) == (None, "delete")
    assert made["payload"]["input"] == COUNT and made["payload"]["multitask_strategy"] == "reject"
    assert datetime.fromisoformat(made["next_run_date"]).astimezone(UTC).hour in (13, 14)
    assert datetime.fromisoformat(made["end_time"]) == datetime(2099, 1, 1, tzinfo=UTC)
    (found,) = await sdk.crons.search(metadata={"purpose": "crud"})
    assert found == made
    assert await sdk.crons.count(metadata={"purpose": "crud"}) == 1
    changed: Any = await sdk.crons.update(cron_id, schedule=YEARLY, enabled=False, input={"steps": 2}, end_time=None)
    assert (changed["schedule"], changed["enabled"], changed["end_time"]) == (YEARLY, False, None)
    assert changed["next_run_date"] is None, "what is disabled has no next run"
    assert changed["payload"]["input"] == {"steps": 2} and changed["payload"]["multitask_strategy"] == "reject"
    assert await sdk.crons.search(metadata={"purpose": "crud"}, enabled=True) == []
    again: Any = await sdk.crons.update(cron_id, enabled=True)
    assert again["next_run_date"].endswith("-01-01T00:00:00+00:00") or "America" in again["timezone"]
    async with httpx.AsyncClient(base_url=live.url) as http:
        assert (await http.get(f"/runs/crons/{cron_id}")).json() == again
    await sdk.crons.delete(cron_id)
    assert await sdk.crons.count(metadata={"purpose": "crud"}) == 0
    with pytest.raises(httpx.HTTPStatusError) as gone:
        await sdk.crons.update(cron_id, enabled=True)
    assert gone.value.response.status_code == 404


async def test_crons_are_searched_in_order_and_pages(live: Stack) -> None:
    sdk, thread_id = client(live), new_thread()
    await sdk.threads.create(thread_id=thread_id)
    made: list[Any] = []
    for month in (3, 1, 2):
        made.append(await sdk.crons.create_for_thread(thread_id, "chat", schedule=f"0 0 1 {month} *", input={}))
    ids = [each["cron_id"] for each in made]
    newest = await sdk.crons.search(thread_id=thread_id)
    assert [each["cron_id"] for each in newest] == ids[::-1]
    by_id = await sdk.crons.search(thread_id=thread_id, sort_by="cron_id", sort_order="asc")
    assert [each["cron_id"] for each in by_id] == sorted(ids)
    soonest = await sdk.crons.search(thread_id=thread_id, sort_by="next_run_date", sort_order="asc", limit=2, offset=1)
    dates = sorted(each["next_run_date"] for each in made)
    assert [each["next_run_date"] for each in soonest] == dates[1:]
    chosen = await sdk.crons.search(thread_id=thread_id, limit=1, select=["cron_id", "schedule"])
    assert chosen == [{"cron_id": ids[-1], "schedule": "0 0 1 2 *"}]
    assert await sdk.crons.search(thread_id=thread_id, assistant_id=made[0]["assistant_id"], limit=1)
    assert await sdk.crons.count(thread_id=thread_id) == 3
    for cron_id in ids:
        await sdk.crons.delete(cron_id)


async def test_a_cron_runs_on_its_thread_until_it_is_disabled(live: Stack) -> None:
    sdk, thread_id = client(live), new_thread()
    await sdk.threads.create(thread_id=thread_id)
    cron: Any = await sdk.crons.create_for_thread(
        thread_id, "counter", schedule=EVERY_SECOND, input=COUNT, metadata={"from": "cron"}
    )

    async def two() -> list[Any]:
        runs: list[Any] = list(await sdk.runs.list(thread_id))
        return runs if sum(run["status"] == "success" for run in runs) >= 2 else []

    runs = await until(two)
    assert {"from": "cron", "cron_id": cron["cron_id"]}.items() <= runs[0]["metadata"].items()
    moved: Any = (await sdk.crons.search(thread_id=thread_id))[0]
    assert moved["next_run_date"] > cron["next_run_date"]
    disabled: Any = await sdk.crons.update(cron["cron_id"], enabled=False)
    assert disabled["next_run_date"] is None
    await sdk.crons.delete(cron["cron_id"])


async def test_threads_of_their_own_are_kept_or_deleted(live: Stack) -> None:
    sdk = client(live)
    kept: Any = await sdk.crons.create("counter", schedule=EVERY_SECOND, input=COUNT, on_run_completed="keep")
    lost: Any = await sdk.crons.create("counter", schedule=EVERY_SECOND, input=COUNT)

    async def threads(cron: Any) -> list[Any]:
        return list(await sdk.threads.search(metadata={"cron_id": cron["cron_id"]}))

    await until(lambda: threads(lost))
    (thread, *_) = await until(lambda: threads(kept))
    for cron in (kept, lost):
        await sdk.crons.delete(cron["cron_id"])

    async def gone() -> bool:
        return not await threads(lost)

    await until(gone)
    assert thread["thread_id"] in [each["thread_id"] for each in await threads(kept)]
    (run,) = list[Any](await sdk.runs.list(thread["thread_id"]))
    assert run["metadata"]["cron_id"] == kept["cron_id"]


async def test_a_cron_whose_thread_is_gone_is_disabled(live: Stack) -> None:
    sdk, thread_id = client(live), new_thread()
    await sdk.threads.create(thread_id=thread_id)
    cron: Any = await sdk.crons.create_for_thread(thread_id, "counter", schedule=EVERY_SECOND, input=COUNT)
    await sdk.threads.delete(thread_id)

    async def is_disabled() -> bool:
        return await sdk.crons.search(thread_id=thread_id, enabled=False) != []

    await until(is_disabled)
    await sdk.crons.delete(cron["cron_id"])


async def test_a_cron_ends(live: Stack) -> None:
    sdk = client(live)
    soon = datetime.now(UTC) + timedelta(seconds=2)
    made: Any = await sdk.crons.create("counter", schedule=EVERY_SECOND, input=COUNT, end_time=soon)

    async def over() -> bool:
        (found,) = [each for each in await sdk.crons.search(limit=100) if each["cron_id"] == made["cron_id"]]
        return found["next_run_date"] is None

    await until(over)
    await sdk.crons.delete(made["cron_id"])


def test_the_sync_client(live: Stack) -> None:
    crons = get_sync_client(url=live.url).crons
    made: Any = crons.create("chat", schedule=YEARLY, input={}, enabled=False, metadata={"purpose": "sync"})
    assert crons.count(metadata={"purpose": "sync"}) == 1
    crons.delete(made["cron_id"])
    assert crons.search(metadata={"purpose": "sync"}) == []
