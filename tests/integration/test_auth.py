"""Auth over all routes: what one user has, nobody else sees, changes or learns of, by whichever route."""

import asyncio
import functools
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from testkit import guarded
from testkit.client import REQUEST_DEADLINE_S, Frame, frames, new_thread
from testkit.guarded import COMMANDS, SAMPLES, SECRET, Things, headers, place, routes
from testkit.servers import NatsServer
from testkit.sockets import Socket
from testkit.stack import REPOSITORY, Stack, fresh_stack
from testkit.wait import until
from testkit.witness import api_of, witnessed

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
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
    with fresh_stack(nats_server.url, postgres_dsn, root, config) as opened:
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
@pytest.mark.filterwarnings("ignore:.*deprecated inferred style")
async def test_a_strange_id_and_an_unused_one_are_the_same_work(guarded_stack: Stack, things: Things) -> None:
    """The time that a refusal takes tells nothing when what is asked of NATS and of Postgres is the same, in order."""
    asked = [(*place(route), SAMPLES[route].body, SAMPLES[route].query) for route in ASKED
             if SAMPLES[route].shows in ("same", "none")]  # fmt: skip
    path = "/threads/<thread_id>/commands"
    asked += [("POST", path, {"id": 1, "method": each, "params": params}, {}) for each, params in COMMANDS.items()]
    differ: dict[str, Any] = {}
    async with api_of(guarded_stack) as client_of:

        async def work(http: httpx.AsyncClient, named: Things, sample: tuple[str, str, Any, dict[str, str]]) -> Any:
            method, path, body, query = map(named.put_into, sample)
            with witnessed() as seen:
                await http.request(method, path, json=body, params=query)
                await asyncio.sleep(0)  # Postgres' statements are noted a moment later
            return [UUID.sub("<made>", named.take_out_of(each)) for each in seen]

        for stranger in STRANGERS:
            async with client_of(headers(stranger)) as http:
                for sample in asked:
                    found = [await work(http, named, sample) for named in (things, guarded.nobodys())]
                    if found[0] != found[1]:
                        differ[f"{sample} ({stranger})"] = found
        async with client_of(headers("alice")) as http:
            one = ("GET", "/threads/<thread_id>", None, dict[str, str]())
            assert await work(http, things, one) != await work(http, guarded.nobodys(), one), "nothing is witnessed"
    assert differ == {}


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


@pytest.mark.usefixtures("unharmed")
async def test_a_thread_of_the_same_id_in_another_tenant_hears_nothing(guarded_stack: Stack) -> None:
    """One runner executes both: who joins a run that was cancelled while it waited is told, by its own thread."""
    path = f"/threads/{new_thread()}/runs"
    body = {"assistant_id": "counter", "input": {"steps": 1000, "delay_s": 0.05}, "if_not_exists": "create"}
    async with client(guarded_stack, "alice") as alice, client(guarded_stack, "carol") as carol:
        firsts: list[tuple[httpx.AsyncClient, str]] = []
        for http in (alice, carol):
            run_id = (await http.post(path, json=body)).json()["run_id"]
            firsts.append((http, f"{path}/{run_id}"))
            await until(functools.partial(is_running, *firsts[-1]), what="the run executes")
        waiting = (await alice.post(path, json=body)).json()["run_id"]
        (await alice.post(f"{path}/{waiting}/cancel")).raise_for_status()
        assert (await alice.get(f"{path}/{waiting}/join")).json() == {}
        for http, first in firsts:
            assert await is_running(http, first)
            (await http.post(f"{first}/cancel", params={"wait": "true"})).raise_for_status()
            (await http.delete(path.removesuffix("/runs"))).raise_for_status()


async def is_running(http: httpx.AsyncClient, run: str) -> bool:
    """Whether a runner has the run at that path."""
    return bool((await http.get(run)).json()["status"] == "running")


@pytest.mark.parametrize("method", COMMANDS)
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.usefixtures("unharmed")
async def test_commands_on_a_strange_thread(guarded_stack: Stack, things: Things, method: str, stranger: str) -> None:
    params, answers = COMMANDS[method], list[str]()
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


OWN_THREAD = [
    route for route in GUARDED if re.search("{(run|checkpoint)_id:str}|/state/checkpoint|/runs/cancel", route)
]
"""What names a thread and something in it."""


@pytest.mark.usefixtures("unharmed")
async def test_strange_runs_and_checkpoints_are_not_reached_through_ones_own_thread(
    guarded_stack: Stack, things: Things
) -> None:
    async with client(guarded_stack, "bob") as bob:
        own = (await bob.post("/threads", json={"metadata": {"graph_id": "chat"}})).json()["thread_id"]
        for route in OWN_THREAD:
            strange, unused = (msgspec.structs.replace(each, thread_id=own) for each in (things, guarded.nobodys()))
            found = await ask(bob, route, strange)
            assert found == await ask(bob, route, unused) and SECRET not in found[1], route
        placed = {"thread_id": things.thread_id, "checkpoint_id": things.checkpoint_id, "checkpoint_ns": ""}
        mine = {"messages": [{"role": "human", "content": "mine"}]}
        for body in (
            {"config": {"configurable": placed}},
            {"checkpoint": placed},
            {"checkpoint_id": placed["thread_id"]},
        ):
            answer = await bob.post(f"/threads/{own}/runs/wait", json={"assistant_id": "chat", "input": mine, **body})
            assert SECRET not in answer.text
        asked: dict[str, Any] = {
            "state": {"checkpoint": placed, "values": mine},
            "history": {"before": {"configurable": placed}, "checkpoint": placed},
        }
        for path, said in asked.items():
            assert SECRET not in (await bob.post(f"/threads/{own}/{path}", json=said)).text
        assert SECRET not in (await bob.get(f"/threads/{own}/history", params={"limit": 50})).text
        # Some of many: what is one's own goes, the rest stays and is not counted.
        some = {"thread_ids": [own, things.thread_id, new_thread()]}
        assert (await bob.post("/threads/prune", json=some)).json() == {"pruned_count": 1}


@pytest.mark.usefixtures("unharmed")
async def test_stopping_everything_stops_ones_own(guarded_stack: Stack) -> None:
    async with AsyncExitStack() as open_ones:
        alice, *strangers = [
            await open_ones.enter_async_context(client(guarded_stack, who)) for who in ("alice", *STRANGERS)
        ]
        thread_id, counting = new_thread(), {"steps": 20, "delay_s": 0.1}
        body = {"assistant_id": "counter", "input": counting, "if_not_exists": "create"}
        made = (await alice.post(f"/threads/{thread_id}/runs", json=body)).json()
        for stranger in strangers:
            for status in ("all", "pending", "running"):
                assert (await stranger.post("/runs/cancel", json={"status": status})).status_code == 204
        (await alice.get(f"/threads/{thread_id}/runs/{made['run_id']}/join")).raise_for_status()
        run = (await alice.get(f"/threads/{thread_id}/runs/{made['run_id']}")).json()
        assert run["status"] == "success"
        (await alice.delete(f"/threads/{thread_id}")).raise_for_status()


@pytest.mark.usefixtures("unharmed")
async def test_an_assistant_goes_with_ones_own_threads_alone(guarded_stack: Stack) -> None:
    async with client(guarded_stack, "alice") as alice, client(guarded_stack, "bob") as bob:
        made = (await bob.post("/assistants", json={"graph_id": "chat"})).json()["assistant_id"]
        about = {"metadata": {"assistant_id": made}}
        kept, gone = [(await http.post("/threads", json=about)).json()["thread_id"] for http in (alice, bob)]
        (await bob.delete(f"/assistants/{made}", params={"delete_threads": "true"})).raise_for_status()
        assert (await alice.get(f"/threads/{kept}")).status_code == 200
        assert (await bob.get(f"/threads/{gone}")).status_code == 404
        (await alice.delete(f"/threads/{kept}")).raise_for_status()


async def test_a_cursor_beyond_the_end_tells_nothing_of_the_end(guarded_stack: Stack, things: Things) -> None:
    answers: list[Any] = []
    for thread_id in (things.thread_id, new_thread()):
        async with Socket(guarded_stack.url, thread_id, headers=headers("bob")) as socket:
            spoken = await socket.command("subscription.subscribe", channels=["values"], since=2**52)
            spoken["result"].pop("subscription_id")
        async with client(guarded_stack, "bob") as bob:
            asked = {**guarded.STREAMED, "since": 2**52}
            async with bob.stream("POST", f"/threads/{thread_id}/stream/events", json=asked) as answer:
                first = await anext(frames(answer.aiter_bytes()))
            joined = await bob.get(f"/threads/{thread_id}/stream", headers={"last-event-id": str(2**52)})
        answers.append((spoken, answer.status_code, first.data, joined.status_code, joined.text, socket.seen))
    assert answers[0] == answers[1]


async def test_pages_count_what_is_ones_own(guarded_stack: Stack) -> None:
    async with client(guarded_stack, "bob") as bob:
        for what in ("threads", "assistants", "runs/crons"):
            for offset in (0, 1, 50):
                asked = {"metadata": {"note": SECRET}, "offset": offset, "limit": 1}
                answer = await bob.post(f"/{what}/search", json=asked)
                assert (answer.json(), answer.headers["x-pagination-total"]) == ([], "0"), (what, offset)


async def test_what_is_open_to_everybody_names_nobody(guarded_stack: Stack, things: Things) -> None:
    """Counts of routes and of runs there are; ids, tenants, users and content there are not."""
    names = [*(getattr(things, name) for name in Things.__struct_fields__), SECRET, "acme", "umbrella", "alice", "bob"]
    async with httpx.AsyncClient(base_url=guarded_stack.url) as nobody:
        for route, is_open in routes():
            if is_open:
                text = (await nobody.get(place(route)[1])).text
                assert not [name for name in names if name in text], route


@pytest.mark.parametrize("path", ["/threads/{}/", "//threads/{}", "/threads//{}", "/threads/{}/.", "/ok/../threads/{}"])
async def test_another_spelling_of_a_path_opens_nothing(guarded_stack: Stack, things: Things, path: str) -> None:
    address = httpx.URL(guarded_stack.url)
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        raw = f"{method} {path.format(things.thread_id)} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(raw.encode())
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            answer = (await reader.read()).decode()
        writer.close()
        # An OPTIONS names methods of the path's pattern, not of the thread.
        status = int(answer.split(" ", 2)[1])
        assert status in (401, 404, 405) or (method == "OPTIONS" and status == 204), answer
        assert SECRET not in answer
