"""What auth handlers do for their own users: filters in Postgres, users in runs, crons in somebody's name."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import APIStatusError

from slipstream_api.app import opened as opened_context
from slipstream_api.auth.caller import Caller
from slipstream_postgres.conditions import Statement, allowed
from slipstream_postgres.pool import Database, open_database
from slipstream_schemas.errors import Forbidden
from slipstream_schemas.metadata_filter import parse_filter
from slipstream_schemas.settings import ServiceSettings
from testkit.client import new_thread
from testkit.servers import NatsServer
from testkit.stack import Stack, fresh_stack
from testkit.wait import until

RULES = """
from langgraph_sdk import Auth
auth = Auth()

@auth.authenticate
def authenticate(body, headers, method, path, path_params, query_params, scope):
    name = headers.get(b"x-user", b"").decode()
    assert name, "no name"
    return {"identity": name, "permissions": ["p"], "team": name[0], "secret": "s3cret-of-the-user"}

@auth.on.threads
async def threads(ctx, value):
    if ctx.action in ("create", "create_run"):
        value.setdefault("metadata", {})["team"] = ctx.user.team
    return {"$or": [{"team": ctx.user.team}, {"readers": {"$contains": ctx.user.identity}}]}

@auth.on.threads.delete
async def delete(ctx, value):
    return ctx.user.identity == "admin"
"""
GRAPH = """
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

class State(TypedDict, total=False):
    who: str

def look(state, config):
    found = config["configurable"]
    user = found["langgraph_auth_user"]
    return {"who": "|".join([user.identity, user["team"], found["user_id"], found["langgraph_auth_user_id"],
                             ",".join(found["langgraph_auth_user_permissions"])])}

graph = StateGraph(State).add_node("look", look).add_edge(START, "look").compile()
"""


@pytest.fixture(scope="module")
def ruled(nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with the rules above."""
    root = tmp_path_factory.mktemp("ruled")
    (root / "rules.py").write_text(RULES)
    (root / "who.py").write_text(GRAPH)
    config = {"graphs": {"who": "./who.py:graph"}, "auth": {"path": "./rules.py:auth", "disable_studio_auth": True}}
    (root / "langgraph.json").write_text(json.dumps(config))
    with fresh_stack(nats_server.url, postgres_dsn, root, root / "langgraph.json") as opened:
        yield opened.start()


def sdk(stack: Stack, user: str) -> Any:
    """The stock client of a user."""
    return get_client(url=stack.url, headers={"x-user": user})


async def test_users_of_a_team_share_its_threads_and_runs_know_their_user(ruled: Stack) -> None:
    ann, abe, bea, admin = (sdk(ruled, name) for name in ("dan", "dora", "bea", "admin"))
    thread = await ann.threads.create(metadata={"team": "z", "readers": ["bea"]})
    assert thread["metadata"] == {"team": "d", "readers": ["bea"]}
    values = await abe.runs.wait(thread["thread_id"], "who", input={})
    assert values == {"who": "dora|d|dora|dora|p"}
    assert (await bea.threads.get(thread["thread_id"]))["values"] == values
    assert [each["thread_id"] for each in await bea.threads.search()] == [thread["thread_id"]]
    other = await bea.threads.create()
    assert {each["thread_id"] for each in await ann.threads.search()} == {thread["thread_id"]}
    assert await ann.threads.count() == 1 and await bea.threads.count() == 2
    with pytest.raises(APIStatusError) as refused:
        await ann.threads.get(other["thread_id"])
    assert refused.value.status_code == 404
    with pytest.raises(APIStatusError) as refused:
        await ann.threads.delete(thread["thread_id"])
    assert refused.value.status_code == 403
    await admin.threads.delete(thread["thread_id"])
    assert await abe.threads.count() == 0


async def test_nobody_runs_as_somebody_else(ruled: Stack) -> None:
    said = {"langgraph_auth_user": {"identity": "bea", "team": "b"}, "langgraph_auth_user_id": "bea", "user_id": "bea",
            "langgraph_auth_user_permissions": ["all"], "langgraph_auth_permissions": ["all"]}  # fmt: skip
    ann = sdk(ruled, "ann")
    own = await ann.assistants.create("who", config={"configurable": said})
    for given in ({"config": {"configurable": said}}, {"context": said}):
        assert await ann.runs.wait(None, "who", input={}, **given) == {"who": "ann|a|ann|ann|p"}
    assert await ann.runs.wait(None, own["assistant_id"], input={}) == {"who": "ann|a|ann|ann|p"}


async def test_the_user_is_in_no_stream_state_or_row(ruled: Stack) -> None:
    async with httpx.AsyncClient(base_url=ruled.url, headers={"x-user": "ann"}, timeout=30) as http:
        thread_id, modes = new_thread(), ["values", "updates", "debug", "checkpoints", "tasks", "messages", "events"]
        await http.post("/threads", json={"thread_id": thread_id})
        body = {"assistant_id": "who", "input": {}, "stream_mode": modes}
        said = [(await http.post(f"/threads/{thread_id}/runs/stream", json=body)).text]
        for path in ("", "/state", "/history?limit=10", "/runs"):
            said.append((await http.get(f"/threads/{thread_id}{path}")).raise_for_status().text)
    assert "ann|a|ann" in said[0]
    assert not any("s3cret" in each for each in said)


async def test_a_run_that_makes_its_thread_makes_it_the_callers(ruled: Stack) -> None:
    ann, bea = sdk(ruled, "ann"), sdk(ruled, "bea")
    thread_id = new_thread()
    await ann.runs.wait(thread_id, "who", input={}, if_not_exists="create")
    assert (await ann.threads.get(thread_id))["metadata"]["team"] == "a"
    with pytest.raises(APIStatusError):
        await bea.threads.get(thread_id)


async def test_keys_of_two_users_are_two_keys(ruled: Stack) -> None:
    made: list[str] = []
    for user in ("ann", "abe"):
        async with httpx.AsyncClient(base_url=ruled.url, headers={"x-user": user, "idempotency-key": "k"}) as http:
            made += [(await http.post("/threads", json={})).json()["thread_id"] for _ in range(2)]
    assert made[0] == made[1] != made[2] == made[3]


async def test_a_cron_acts_in_the_name_of_its_maker(ruled: Stack) -> None:
    async with httpx.AsyncClient(base_url=ruled.url, headers={"x-user": "ann"}, timeout=30) as http:
        body = {"assistant_id": "who", "input": {}, "schedule": "* * * * * *", "on_run_completed": "keep"}
        cron = (await http.post("/runs/crons", json=body)).raise_for_status().json()
        assert cron["user_id"] == "ann" and "s3cret" not in json.dumps(cron)

        async def has_run() -> bool:
            asked = {"metadata": {"cron_id": cron["cron_id"], "team": "a"}, "values": {"who": "ann|a|ann|ann|p"}}
            return bool((await http.post("/threads/search", json=asked)).json())

        await until(has_run)
        (await http.delete(f"/runs/crons/{cron['cron_id']}")).raise_for_status()


async def test_a_body_that_a_handler_has_read_is_there_for_the_route(ruled: Stack) -> None:
    headers = {"x-user": "ann", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=ruled.url, headers=headers) as http:

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b'{"metadata": ', b'{"x": 1}', b"}"):
                yield piece

        assert (await http.post("/threads", content=pieces())).json()["metadata"] == {"x": 1, "team": "a"}
        assert (await http.post("/threads", content=b"{")).status_code == 422
        assert (await http.post("/threads", headers={"x-user": ""})).json() == {"detail": "no name"}


async def test_a_route_that_asks_nobody_gets_no_scope(ruled: Stack) -> None:
    settings = ServiceSettings(
        nats_url=ruled.nats_url, database_url=ruled.dsn, region=ruled.region, config=str(ruled.config)
    )
    async with opened_context(settings) as context:
        seen = context.acting_for(Caller(identity="ann"))
        with pytest.raises(Forbidden):
            _ = seen.scope
        assert context.by_itself("acme").scope.tenant == "acme"


def test_the_start_says_that_there_is_no_auth(live: Stack) -> None:
    assert "auth: none" in live.apis[0].log_text()


def test_the_start_says_which_auth_there_is(ruled: Stack) -> None:
    assert "auth: ./rules.py:auth, with rules" in ruled.apis[0].log_text()


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    found = await open_database(database_dsn)
    yield found
    await found.close()


METADATA = {"owner": "a", "n": 1, "yes": True, "none": None, "tags": ["x", "y"], "deep": {"k": 1}, "empty": {}}


@pytest.mark.parametrize(
    ("asked", "met"),
    [
        ({"owner": "a"}, True), ({"owner": "b"}, False), ({"missing": "a"}, False), ({"missing": None}, False),
        ({"none": None}, True), ({"n": 1}, True), ({"n": True}, False), ({"yes": 1}, False), ({"yes": True}, True),
        ({"tags": "x"}, False), ({"tags": {"$eq": ["x"]}}, False), ({"tags": {"$eq": ["x", "y"]}}, True),
        ({"deep": {"$eq": {"k": 1}}}, True), ({"deep": {"$eq": {}}}, False), ({"empty": {"$eq": {}}}, True),
        ({"tags": {"$contains": "x"}}, True), ({"tags": {"$contains": ["x", "y"]}}, True),
        ({"tags": {"$contains": ["x", "z"]}}, False), ({"owner": {"$contains": "a"}}, False),
        ({"missing": {"$contains": "a"}}, False), ({"owner": "a", "n": 2}, False), ({"owner": "a", "n": 1}, True),
        ({"$or": [{"owner": "b"}, {"n": 1}]}, True), ({"$or": [{"owner": "b"}, {"n": 2}]}, False),
        ({"$and": [{"owner": "a"}, {"n": 1}]}, True), ({"$and": [{"owner": "a"}, {"n": 2}]}, False),
        ({"owner": "a", "$or": [{"n": 2}, {"n": 3}]}, False), ({"owner": "a' OR true --"}, False),
        ({"o\"; --": "a"}, False), ({"owner": "a\x00"}, False),
    ],
)  # fmt: skip
async def test_filters_are_held_by_postgres(database: Database, asked: dict[str, Any], met: bool) -> None:
    sql = Statement(msgspec.json.encode(METADATA))
    text = allowed(parse_filter(asked), sql.put)
    async with database.connection() as connection:
        assert await connection.fetchval(f"SELECT {text} FROM (SELECT $1::jsonb AS metadata) r", *sql.arguments) is met
