"""Auth over all routes: what one user has, nobody else sees, changes or learns of, by whichever route."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from testkit import guarded
from testkit.client import REQUEST_DEADLINE_S, Frame, frames, new_thread
from testkit.guarded import SAMPLES, SECRET, Things, headers, place, routes
from testkit.servers import NatsServer, fresh_database
from testkit.sockets import Socket
from testkit.stack import REPOSITORY, Stack

GUARDED = [route for route, is_open in routes() if not is_open]
SILENT = [route for route, sample in SAMPLES.items() if sample.shows == "silent"]
ASKED = [route for route in GUARDED if route not in SILENT]
STRANGERS = ("bob", "carol")
"""One of the same tenant, one of another."""
WALK = [
    (route, stranger) for route in ASKED for stranger in STRANGERS
    if not (SAMPLES[route].shows == "taken" and stranger == "carol")
]  # fmt: skip
"""Ids of another tenant are free: `test_ids_of_another_tenant_are_free` shows that."""


@pytest.fixture(scope="module")
def guarded_stack(
    nats_server: NatsServer, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running stack with the rules of `examples/auth.py`."""
    root, config = tmp_path_factory.mktemp("guarded"), REPOSITORY / "examples" / "auth.json"
    with (
        fresh_database(postgres_dsn) as dsn,
        Stack(nats_server.url, dsn, f"g{new_thread()[:8]}", root, config) as opened,
    ):
        opened.prepare()
        yield opened.start()


@pytest.fixture(scope="module")
async def things(guarded_stack: Stack) -> Things:
    """What alice has."""
    async with client(guarded_stack, "alice") as alice:
        made = await guarded.make(alice)
        await guarded.settled(alice, made)
        return made


@pytest.fixture
async def unharmed(guarded_stack: Stack, things: Things) -> AsyncIterator[None]:
    """Afterwards, alice sees what she saw before."""
    async with client(guarded_stack, "alice") as alice:
        before = await guarded.seen(alice, things)
        yield
        assert await guarded.seen(alice, things) == before


def client(stack: Stack, user: str) -> httpx.AsyncClient:
    """A client of a user's."""
    return httpx.AsyncClient(base_url=stack.url, headers=headers(user), timeout=REQUEST_DEADLINE_S)


async def ask(http: httpx.AsyncClient, route: str, named: Things) -> tuple[int, str, dict[str, str]]:
    """The status, the body and the headers that a route's sample is answered with; ids in it have become names."""
    method, path = place(route)
    sample = SAMPLES[route]
    answer = await http.request(
        method, named.put_into(path), json=named.put_into(sample.body), params=named.put_into(sample.query)
    )
    kept = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    return answer.status_code, named.take_out_of(answer.text), kept


def test_every_route_has_a_sample() -> None:
    assert sorted(GUARDED) == sorted(SAMPLES)


@pytest.mark.parametrize("route", [route for route in GUARDED if not route.startswith("WS")])
async def test_without_an_identity_a_route_says_nothing_else(guarded_stack: Stack, things: Things, route: str) -> None:
    async with httpx.AsyncClient(base_url=guarded_stack.url) as nobody:
        status, body, _ = await ask(nobody, route, things)
    assert (status, body) == (401, '{"detail":"Unknown token"}')


@pytest.mark.parametrize("route", [route for route, is_open in routes() if is_open])
async def test_system_routes_answer_everybody(guarded_stack: Stack, route: str) -> None:
    async with httpx.AsyncClient(base_url=guarded_stack.url) as nobody:
        assert (await nobody.get(place(route)[1])).status_code == 200


async def test_a_page_of_another_origin_may_ask_and_reads_the_refusal(guarded_stack: Stack) -> None:
    page = {"origin": "https://app.example"}
    asked = {**page, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with httpx.AsyncClient(base_url=guarded_stack.url) as nobody:
        assert (await nobody.options("/threads/search", headers=asked)).status_code == 204
        refused = await nobody.post("/threads/search", json={}, headers=page)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


@pytest.mark.parametrize(("route", "stranger"), WALK)
@pytest.mark.usefixtures("unharmed")
async def test_a_stranger_learns_nothing(guarded_stack: Stack, things: Things, route: str, stranger: str) -> None:
    shows = SAMPLES[route].shows
    async with client(guarded_stack, stranger) as http:
        found = await ask(http, route, things)
        unused = await ask(http, route, guarded.nobodys())
    status, body, said = found
    assert SECRET not in body or shows == "own"
    if shows == "same":
        assert found == unused
    elif shows == "none":
        assert status == 200 and body in ("[]", "0", '{"items":[]}', '{"namespaces":[]}')
        assert said.get("x-pagination-total", "0") == "0" and "x-pagination-next" not in said
    elif shows == "taken":
        assert status == 409 and "already exists" in body
    else:
        assert status in (200, 204)


@pytest.mark.usefixtures("unharmed")
async def test_ids_of_another_tenant_are_free(guarded_stack: Stack, things: Things) -> None:
    async with client(guarded_stack, "carol") as carol:
        for path, body in (
            ("/threads", {"thread_id": things.thread_id}),
            ("/assistants", {"graph_id": "chat", "assistant_id": things.assistant_id}),
        ):
            answer = await carol.post(path, json=body)
            assert answer.status_code == 200 and SECRET not in answer.text
            (await carol.delete(f"{path}/{next(reversed(body.values()))}")).raise_for_status()


@pytest.mark.parametrize("method", ["run.start", "input.respond", "agent.getTree", "state.get", "state.listCheckpoints",
                                    "state.fork", "subscription.reconnect"])  # fmt: skip
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.usefixtures("unharmed")
async def test_commands_on_a_strange_thread(guarded_stack: Stack, things: Things, method: str, stranger: str) -> None:
    samples: dict[str, dict[str, Any]] = {
        "run.start": {"assistant_id": "<assistant_id>", "input": {}},
        "input.respond": {"interrupt_id": "0" * 32, "namespace": [], "response": "yes"},
        "agent.getTree": {"run_id": "<run_id>"},
        "state.get": {"namespace": []},
        "state.listCheckpoints": {},
        "state.fork": {"checkpoint_id": "<checkpoint_id>"},
        "subscription.reconnect": {"run_id": "<run_id>", "subscriptions": [], "last_event_id": "1"},
    }
    params, answers = samples[method], list[str]()
    for named in (things, guarded.nobodys()):
        body = named.put_into({"id": 1, "method": method, "params": params})
        async with client(guarded_stack, stranger) as http:
            answer = await http.post(f"/threads/{named.thread_id}/commands", json=body)
        async with Socket(guarded_stack.url, named.thread_id, headers=headers(stranger)) as socket:
            spoken = await socket.command(method, **named.put_into(params))
        assert answer.json()["type"] == "error" and spoken["type"] == "error"
        answers.append(named.take_out_of(f"{answer.status_code} {answer.text} {spoken}"))
    assert answers[0] == answers[1] and SECRET not in answers[0]


async def test_a_run_cannot_be_started_on_a_strange_thread(guarded_stack: Stack, things: Things) -> None:
    body = {"id": 1, "method": "run.start", "params": guarded.RUN}
    async with client(guarded_stack, "bob") as bob:
        answer = (await bob.post(f"/threads/{things.thread_id}/commands", json=body)).json()
        assert answer["error"] == "no_such_run"
        path = f"/threads/{things.thread_id}/runs"
        assert (await bob.post(path, json={**guarded.RUN, "if_not_exists": "create"})).status_code == 404


async def test_a_stranger_hears_nothing_on_a_stream(guarded_stack: Stack, things: Things) -> None:
    """Of what was said before, of a run that begins while they listen, of a thread that is made while they wait, and of
    one that is made anew under an id that was theirs.
    """
    unused, handed_on = new_thread(), new_thread()
    async with AsyncExitStack() as open_ones:
        listeners = {who: await open_ones.enter_async_context(client(guarded_stack, who)) for who in STRANGERS}
        alice, bob = await open_ones.enter_async_context(client(guarded_stack, "alice")), listeners["bob"]
        (await bob.post("/threads", json={"thread_id": handed_on})).raise_for_status()
        heard: list[AsyncIterator[Frame]] = []
        for route, who, thread_id in itertools.product(SILENT, STRANGERS, (things.thread_id, unused, handed_on)):
            method, path = place(route)
            if method == "POST":
                opening = listeners[who].stream("POST", path.replace("<thread_id>", thread_id), json=guarded.STREAMED)
                answer = await open_ones.enter_async_context(opening)
                assert answer.status_code == 200
                heard.append(frames(answer.aiter_bytes()))
        (await bob.delete(f"/threads/{handed_on}")).raise_for_status()
        (await alice.post("/threads", json={"thread_id": handed_on})).raise_for_status()
        for thread_id in (things.thread_id, unused, handed_on):
            body = {**guarded.RUN, "if_not_exists": "create"}
            (await alice.post(f"/threads/{thread_id}/runs/wait", json=body)).raise_for_status()
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            words = await asyncio.gather(*map(until_second_heartbeat, heard))
    assert {word for each in words for word in each} == {"heartbeat"}


async def until_second_heartbeat(stream: AsyncIterator[Frame]) -> list[str]:
    """What comes up to the second of the connection's own keepalives behind its first frame, which is one too.

    The first may have been on its way before the run was over. Caught up is who listens to their own thread.
    """
    said: list[str] = []
    async for frame in stream:
        if not frame.data.startswith("caught-up"):
            said.append(frame.data)
        if said.count("heartbeat") == 3:
            break
    return said


@pytest.mark.parametrize("route", [route for route in SILENT if route.startswith("WS")])
async def test_a_socket_hears_its_owners_threads_alone(guarded_stack: Stack, things: Things, route: str) -> None:
    path = place(route)[1].partition("<thread_id>/")[2]
    async with Socket(guarded_stack.url, things.thread_id, path, headers=headers("bob")) as strange:
        await strange.subscribe()
        async with Socket(guarded_stack.url, things.thread_id, path, query="token=alice-token") as own:
            await own.subscribe("lifecycle")
            await own.until("caught_up")
            before = len(own.events)
            await own.command("run.start", **guarded.RUN)
            await own.until("run_ended", 1 + sum(each["type"] == "run_ended" for each in own.seen))
            assert len(own.events) > before
        # An answer comes behind whatever would have been sent before it.
        await strange.command("subscription.subscribe", channels=["values"])
        assert strange.seen == []


async def test_a_socket_without_an_identity_is_refused(guarded_stack: Stack, things: Things) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with Socket(guarded_stack.url, things.thread_id):
            pass
    assert refused.value.response.status_code == 401
