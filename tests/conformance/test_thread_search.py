"""Searching and counting threads: the unmodified Python SDK, and what goes over HTTP."""

import functools
import uuid
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from slipstream_postgres.pool import open_database
from slipstream_schemas.limits import SEARCH_TOTAL_MAX
from testkit.client import Client
from testkit.stack import Stack

ROWS = """INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status, config,
 interrupts, control_seq) SELECT 'default', 'made-' || i, now() + i * interval '1 s', now(), now(),
 jsonb_build_object('n', i, 'even', i % 2 = 0), 'idle', '{}', '{}', i FROM generate_series(1, $1) i"""


async def made(live: Stack) -> tuple[LangGraphClient, str, list[str]]:
    """A client, a mark, and three threads that have it: one without runs, one that counted to 2, one interrupted."""
    sdk, mark = get_client(url=live.url), uuid.uuid4().hex
    ids = [str((await sdk.threads.create(metadata={"mark": mark, "n": n}))["thread_id"]) for n in range(3)]
    await sdk.runs.wait(ids[1], "counter", input={"steps": 2, "delay_s": 0.0})
    await sdk.runs.wait(ids[2], "approval", input={"amount": 7})
    await sdk.threads.get(ids[2])  # waits for the rows, which a list does not
    return sdk, mark, ids


async def test_filters_and_counts(live: Stack) -> None:
    sdk, mark, ids = await made(live)

    async def found(**wanted: Any) -> list[str]:
        search: Any = sdk.threads.search
        threads = await search(**{"metadata": {"mark": mark}, "limit": 100, **wanted})
        return [thread["thread_id"] for thread in threads]

    assert await found() == ids[::-1]
    assert await found(metadata={"mark": mark, "n": 1}) == [ids[1]]
    assert await found(status="interrupted") == [ids[2]]
    assert await found(values={"count": 2}) == [ids[1]]
    assert await found(ids=[ids[0], ids[2], "nobody"]) == [ids[2], ids[0]]
    assert await found(metadata={"mark": "nobody's"}) == []
    assert await sdk.threads.count(metadata={"mark": mark}) == 3
    assert await sdk.threads.count(metadata={"mark": mark}, status="idle") == 2
    assert await sdk.threads.count(metadata={"mark": mark}, values={"count": 2}) == 1


async def test_orders_and_pages(live: Stack) -> None:
    sdk, mark, ids = await made(live)
    await sdk.threads.update(ids[0], metadata={"touched": True})
    for sort_by, expected in (
        ("created_at", ids),
        ("updated_at", [ids[1], ids[2], ids[0]]),
        ("state_updated_at", ids),
        ("thread_id", sorted(ids)),
        ("status", [*sorted(ids[:2]), ids[2]]),
    ):
        search: Any = sdk.threads.search
        seen = await search(metadata={"mark": mark}, sort_by=sort_by, sort_order="asc")
        assert [thread["thread_id"] for thread in seen] == expected, sort_by
    async with Client(live.url) as client:
        pages: list[str] = []
        offset: str | None = "0"
        while offset is not None:
            body = {"metadata": {"mark": mark}, "limit": 2, "offset": int(offset)}
            answer = await client.http.post("/threads/search", json=body)
            assert answer.headers["x-pagination-total"] == "3"
            assert "x-pagination-total-relation" not in answer.headers
            pages.extend(thread["thread_id"] for thread in answer.json())
            offset = answer.headers.get("x-pagination-next")
        assert pages == ids[::-1]


async def test_select_and_extract(live: Stack) -> None:
    sdk, mark, ids = await made(live)
    search: Any = functools.partial(sdk.threads.search, metadata={"mark": mark})
    (first, *_) = await search(sort_order="asc", sort_by="created_at")
    assert list(first) == ["thread_id", "created_at", "updated_at", "state_updated_at", "metadata", "status", "config",
                           "values", "error", "interrupts"]  # fmt: skip
    few = await search(select=["thread_id", "status", "context"], status="interrupted")
    assert few == [{"thread_id": ids[2], "status": "interrupted"}]
    extract = {"count": "values.count", "user": "metadata.mark", "none": "values.messages[-1].content"}
    (counted,) = await search(ids=[ids[1]], select=["thread_id"], extract=extract)
    assert counted == {"thread_id": ids[1], "extracted": {"count": 2, "user": mark, "none": None}}
    chat = await sdk.threads.create(metadata={"mark": mark})
    hello: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    said: Any = await sdk.runs.wait(chat["thread_id"], "subgraphs", input=hello)
    await sdk.threads.get(chat["thread_id"])
    paths = {"first": "values.messages[0].content", "last": "values.messages[-1].content"}
    (spoken,) = await search(ids=[chat["thread_id"]], extract=paths)
    assert spoken["extracted"] == {"first": "hello", "last": said["messages"][-1]["content"]}


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 0},
        {"limit": 1001},
        {"offset": -1},
        {"sort_order": "up"},
        {"select": ["thread_id", "passwords"]},
        {"ids": ["x"] * 1001},
        {"extract": {"x": "tenant"}},
        {"extract": {"x": "values.a[b]"}},
        {"extract": {"x": "values" + ".a" * 33}},
        {"extract": {f"x{n}": "values" for n in range(11)}},
        {"metadata": "x"},
    ],
)
async def test_bad_searches_are_named(live: Stack, body: dict[str, Any]) -> None:
    async with Client(live.url) as client:
        for path in ("search", "count"):
            answer = await client.http.post(f"/threads/{path}", json=body)
            assert answer.status_code == 422, answer.text
            assert answer.json()["detail"][0]["loc"][:2] == ["body", next(iter(body))]


async def test_totals_are_exact_up_to_a_bound_and_then_say_so(stack: Stack) -> None:
    stack.start(apis=1, runners=0, projectors=0)
    database = await open_database(stack.dsn)
    try:
        async with database.connection() as connection:
            await connection.execute(ROWS, SEARCH_TOTAL_MAX + 5)
    finally:
        await database.close()
    async with Client(stack.url) as client:
        answer = await client.http.post("/threads/search", json={"limit": 1, "select": ["thread_id"]})
        assert answer.json() == [{"thread_id": f"made-{SEARCH_TOTAL_MAX + 5}"}]
        assert (answer.headers["x-pagination-total"], answer.headers["x-pagination-next"]) == ("10000", "1")
        assert answer.headers["x-pagination-total-relation"] == "gte"
        fewer = await client.http.post("/threads/search", json={"metadata": {"even": True}, "limit": 1})
        assert fewer.headers["x-pagination-total"] == str(SEARCH_TOTAL_MAX // 2 + 2)
        assert "x-pagination-total-relation" not in fewer.headers
        assert (await client.http.post("/threads/count", json={})).json() == SEARCH_TOTAL_MAX + 5
