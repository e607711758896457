"""What the walk over all routes needs: things of one user's, and every route's sample request."""

from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from slipstream_api.app import ROUTES
from slipstream_api.auth.middleware import OPEN
from testkit.client import new_thread
from testkit.wait import until

SECRET: Final = "alice-only-7c1f"
RUN: Final = {"assistant_id": "chat", "input": {"messages": [{"role": "human", "content": SECRET}]}}
TICK: Final = "0 0 1 1 *"


def headers(user: str) -> dict[str, str]:
    """What a user of `examples/auth.py` sends."""
    return {"authorization": f"Bearer {user}-token"}


class Things(msgspec.Struct):
    """Ids of what a user has, or ids that nobody uses."""

    thread_id: str
    run_id: str
    assistant_id: str
    cron_id: str
    checkpoint_id: str
    waiting_id: str

    def put_into(self, value: Any) -> Any:
        """The value with each `<name>` replaced."""
        if isinstance(value, str):
            for name in self.__struct_fields__:
                value = value.replace(f"<{name}>", getattr(self, name))
            return value
        if isinstance(value, Mapping):
            return {self.put_into(key): self.put_into(each) for key, each in value.items()}
        return [self.put_into(each) for each in value] if isinstance(value, (list, tuple)) else value

    def take_out_of(self, text: str) -> str:
        """The text with each id replaced by its name."""
        for name in self.__struct_fields__:
            text = text.replace(getattr(self, name), f"<{name}>")
        return text


def nobodys() -> Things:
    """Ids that nobody uses."""
    return Things(*(new_thread() for _ in Things.__struct_fields__))


async def make(http: httpx.AsyncClient) -> Things:
    """One of everything, with the secret in it."""
    thread, waiting, metadata = new_thread(), new_thread(), {"note": SECRET}
    for thread_id in (thread, waiting):
        (await http.post("/threads", json={"thread_id": thread_id, "metadata": metadata})).raise_for_status()
    answer = await http.post(f"/threads/{thread}/runs", json=RUN)
    run_id = str(answer.raise_for_status().json()["run_id"])
    (await http.get(f"/threads/{thread}/runs/{run_id}/join")).raise_for_status()
    asked = {"assistant_id": "approval", "input": {"amount": 7}}
    (await http.post(f"/threads/{waiting}/runs/wait", json=asked)).raise_for_status()
    state = (await http.get(f"/threads/{thread}/state")).raise_for_status().json()
    body = {"graph_id": "chat", "name": SECRET, "metadata": metadata}
    assistant = (await http.post("/assistants", json=body)).raise_for_status().json()
    cron = (await http.post("/runs/crons", json={**RUN, "schedule": TICK})).raise_for_status().json()
    item = {"namespace": ["notes"], "key": "one", "value": {"text": SECRET}}
    (await http.put("/store/items", json=item)).raise_for_status()
    checkpoint_id = state["checkpoint"]["checkpoint_id"]
    return Things(thread, run_id, assistant["assistant_id"], cron["cron_id"], checkpoint_id, waiting)


async def seen(http: httpx.AsyncClient, things: Things) -> dict[str, Any]:
    """What their owner sees of them."""
    paths = ("/threads/<thread_id>", "/threads/<waiting_id>", "/threads/<thread_id>/runs", "/assistants/<assistant_id>",
             "/runs/crons/<cron_id>", "/threads/<thread_id>/history?limit=50")  # fmt: skip
    found = {path: (await http.get(things.put_into(path))).raise_for_status().json() for path in paths}
    place = {"namespace": "notes", "key": "one"}
    found["item"] = (await http.get("/store/items", params=place)).raise_for_status().json()["value"]
    return found


async def settled(http: httpx.AsyncClient, things: Things) -> None:
    """Wait until the rows show that the runs are over."""

    async def is_settled() -> bool:
        row = (await http.get(f"/threads/{things.waiting_id}")).json()
        return bool(row["status"] == "interrupted" and row["interrupts"])

    await until(is_settled)


class Sample(msgspec.Struct):
    """A request that names `things`, and what it shows to somebody who has none of them.

    `same`: what an id that nobody uses shows. `none`: nothing, whatever there is. `own`: it makes something of one's
    own. `taken`: that the id is taken. `silent`: a stream without a word.
    """

    shows: str
    body: Any = None
    query: dict[str, str] = {}


IN_THREAD: Final = "/threads/{thread_id:str}"
IN_RUN: Final = f"{IN_THREAD}/runs/{{run_id:str}}"
ASSISTANT: Final = "/assistants/{assistant_id:str}"
STREAMED: Final = {"channels": ["values", "messages", "lifecycle"]}
RPC: Final = {"jsonrpc": "2.0", "id": 1}
COMMAND: Final = {"id": 1, "method": "state.get", "params": {}}
SAMPLES: Final[dict[str, Sample]] = {
    "POST /assistants": Sample("taken", {"graph_id": "chat", "assistant_id": "<assistant_id>"}),
    "POST /assistants/search": Sample("none", {"metadata": {"note": SECRET}}),
    "POST /assistants/count": Sample("none", {"metadata": {"note": SECRET}}),
    f"GET {ASSISTANT}": Sample("same"),
    f"PATCH {ASSISTANT}": Sample("same", {"name": "stolen", "metadata": {"owner": "bob"}}),
    f"DELETE {ASSISTANT}": Sample("same"),
    f"POST {ASSISTANT}/versions": Sample("same", {}),
    f"POST {ASSISTANT}/latest": Sample("same", {"version": 1}),
    f"GET {ASSISTANT}/graph": Sample("same"),
    f"GET {ASSISTANT}/schemas": Sample("same"),
    f"GET {ASSISTANT}/subgraphs": Sample("same"),
    f"GET {ASSISTANT}/subgraphs/{{namespace:str}}": Sample("same"),
    "POST /threads/search": Sample("none", {"metadata": {"note": SECRET}}),
    "POST /threads/count": Sample("none", {"ids": ["<thread_id>"]}),
    "POST /threads": Sample("taken", {"thread_id": "<thread_id>", "if_exists": "do_nothing"}),
    f"GET {IN_THREAD}": Sample("same"),
    f"PATCH {IN_THREAD}": Sample("same", {"metadata": {"owner": "bob"}}),
    f"DELETE {IN_THREAD}": Sample("same"),
    f"GET {IN_THREAD}/storage": Sample("same"),
    f"POST {IN_THREAD}/copy": Sample("same"),
    "POST /threads/prune": Sample("same", {"thread_ids": ["<thread_id>"], "strategy": "delete"}),
    f"GET {IN_THREAD}/state": Sample("same"),
    f"GET {IN_THREAD}/state/{{checkpoint_id:str}}": Sample("same"),
    f"POST {IN_THREAD}/state/checkpoint": Sample("same", {"checkpoint": {"checkpoint_id": "<checkpoint_id>"}}),
    f"POST {IN_THREAD}/state": Sample("same", {"values": {"messages": []}}),
    f"POST {IN_THREAD}/history": Sample("same", {}),
    f"GET {IN_THREAD}/history": Sample("same"),
    f"POST {IN_THREAD}/runs": Sample("same", RUN),
    f"POST {IN_THREAD}/runs/stream": Sample("same", RUN),
    f"POST {IN_THREAD}/runs/wait": Sample("same", RUN),
    f"GET {IN_RUN}/join": Sample("same"),
    f"GET {IN_RUN}/stream": Sample("same"),
    f"GET {IN_THREAD}/runs": Sample("same"),
    f"GET {IN_RUN}": Sample("same"),
    f"DELETE {IN_RUN}": Sample("same"),
    f"POST {IN_RUN}/cancel": Sample("same"),
    "POST /runs": Sample("same", {**RUN, "assistant_id": "<assistant_id>"}),
    "POST /runs/stream": Sample("same", {**RUN, "assistant_id": "<assistant_id>"}),
    "POST /runs/wait": Sample("same", {**RUN, "assistant_id": "<assistant_id>"}),
    "POST /runs/batch": Sample("same", [{**RUN, "assistant_id": "<assistant_id>"}]),
    "POST /runs/cancel": Sample("same", {"thread_id": "<thread_id>", "run_ids": ["<run_id>"]}),
    "POST /runs/crons": Sample("same", {**RUN, "assistant_id": "<assistant_id>", "schedule": TICK}),
    f"POST {IN_THREAD}/runs/crons": Sample("same", {**RUN, "schedule": TICK}),
    "GET /runs/crons/{cron_id:str}": Sample("same"),
    "PATCH /runs/crons/{cron_id:str}": Sample("same", {"enabled": False}),
    "DELETE /runs/crons/{cron_id:str}": Sample("same"),
    "POST /runs/crons/search": Sample("none", {}),
    "POST /runs/crons/count": Sample("none", {}),
    "PUT /store/items": Sample("own", {"namespace": ["notes"], "key": "one", "value": {"text": "mine"}}),
    "GET /store/items": Sample("same", query={"namespace": "notes", "key": "one"}),
    "DELETE /store/items": Sample("same", {"namespace": ["notes"], "key": "one"}),
    "POST /store/items/search": Sample("none", {}),
    "POST /store/namespaces": Sample("none", {}),
    "GET /.well-known/agent-card.json": Sample("same", query={"assistant_id": "<assistant_id>"}),
    "POST /a2a/{assistant_id:str}": Sample("same", {**RPC, "method": "tasks/get", "params": {"id": "<run_id>"}}),
    "POST /mcp": Sample("same", {**RPC, "method": "tools/call", "params": {"name": "<assistant_id>", "arguments": {}}}),
    f"GET {IN_THREAD}/stream": Sample("same"),
    f"POST {IN_THREAD}/stream": Sample("silent", STREAMED),
    f"POST {IN_THREAD}/stream/events": Sample("silent", STREAMED),
    f"POST {IN_THREAD}/commands": Sample("same", COMMAND),
    f"WS {IN_THREAD}/stream": Sample("silent"),
    f"WS {IN_THREAD}/stream/events": Sample("silent"),
}
COMMANDS: Final[dict[str, dict[str, Any]]] = {
    "run.start": {"assistant_id": "<assistant_id>", "input": {}},
    "input.respond": {"interrupt_id": "0" * 32, "namespace": [], "response": "yes"},
    "agent.getTree": {"run_id": "<run_id>"},
    "state.get": {"namespace": []},
    "state.listCheckpoints": {},
    "state.fork": {"checkpoint_id": "<checkpoint_id>"},
    "subscription.reconnect": {"run_id": "<run_id>", "subscriptions": [], "last_event_id": "1"},
}


def routes() -> list[tuple[str, bool]]:
    """Every route of the application, as in the samples, and whether it answers everybody."""
    found: list[tuple[str, bool]] = []
    for handler in ROUTES:
        is_open = handler.opt.get("auth") == OPEN["auth"]
        for method in sorted(str(each) for each in getattr(handler, "http_methods", ["WS"])):
            found.extend((f"{method} {path}", is_open) for path in sorted(handler.paths))
    return found


def place(route: str) -> tuple[str, str]:
    """The method and the path of a route, with the names of things in it."""
    method, _, path = route.partition(" ")
    for name in (*Things.__struct_fields__, "namespace"):
        path = path.replace(f"{{{name}:str}}", f"<{name}>")
    return method, path.replace("<namespace>", "n")
