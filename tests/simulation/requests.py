"""Requests as clients send them: once, or with an `Idempotency-Key` again and again until the answer is definite."""

import asyncio
import time
from typing import Any, Final

import httpx

from simulation.model import Asked, Thread, run_input
from simulation.streams import V1_MODES
from simulation.world import World
from testkit.client import frames, new_thread

TRIES_S: Final = 90.0
PAUSE_S: Final = 0.2
STREAM_S: Final = 5.0
WRONG_ID: Final = "0" * 32


class Requests:
    """Sends requests and writes into the model what was answered. `wrong` are answers that none may get."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wrong: list[str] = []

    async def _send(
        self, asked: Asked, api: int, method: str, path: str, *, again: bool = False, **request: Any
    ) -> httpx.Response | None:
        """The answer, or None when there is none. With `again` it is repeated, on one API and the other."""
        end = time.monotonic() + TRIES_S
        while True:
            answer = await self._once(asked, api, method, path, **request)
            if answer is not None or not again or time.monotonic() > end:
                asked.answered_at = time.monotonic()
                self._world.count(f"requests {asked.outcome}")
                return answer
            api = 1 - api
            await asyncio.sleep(PAUSE_S)

    async def _once(self, asked: Asked, api: int, method: str, path: str, **request: Any) -> httpx.Response | None:
        while True:
            try:
                answer = await self._world.clients[api].request(method, path, **request)
            except httpx.ConnectError:
                # Nobody has heard it: the other one will. Both away is over soon, they are started again.
                api = 1 - api
                await asyncio.sleep(PAUSE_S)
                continue
            except httpx.TransportError as error:
                asked.outcome, asked.said = "unknown", repr(error)
                return None
            break
        asked.status, asked.said = answer.status_code, answer.text[:300]
        if answer.status_code == 500:
            self.wrong.append(f"{method} {path}: 500 {answer.text}")
        if answer.status_code >= 500:
            asked.outcome = "unknown"
            return None
        is_error = answer.status_code >= 400 or (path.endswith("/commands") and answer.json().get("type") == "error")
        asked.outcome = "refused" if is_error else "accepted"
        return answer

    async def thread(self, asked: Asked, thread: Thread, api: int, if_exists: str) -> None:
        """`POST /threads`."""
        body = {"thread_id": thread.thread_id, "if_exists": if_exists}
        await self._send(asked, api, "POST", "/threads", json=body)

    async def run(self, asked: Asked, thread: Thread, api: int, how: str, delay_s: float, *, keyed: bool) -> None:
        """A run, by v1 (creating its thread or not) or by v2."""
        body: dict[str, Any] = {
            "assistant_id": thread.graph, "input": run_input(thread.graph, asked.steps, delay_s),
            "metadata": {"sim": asked.number}, "multitask_strategy": asked.strategy,
        }  # fmt: skip
        headers = {"idempotency-key": f"{thread.thread_id}:{asked.number}"} if keyed else {}
        path = f"/threads/{thread.thread_id}"
        if how == "v2":
            command = {"id": asked.number, "method": "run.start", "params": body}
            answer = await self._send(
                asked, api, "POST", f"{path}/commands", json=command, headers=headers, again=keyed
            )
        else:
            body |= {"stream_mode": list(V1_MODES)} | ({"if_not_exists": "create"} if how == "v1 create" else {})
            answer = await self._send(asked, api, "POST", f"{path}/runs", json=body, headers=headers, again=keyed)
        if answer is not None and asked.outcome == "accepted":
            asked.run_id = answer.json()["result"]["run_id"] if how == "v2" else answer.json()["run_id"]

    async def run_and_leave(self, asked: Asked, thread: Thread, api: int, on_disconnect: str, count: int) -> None:
        """`POST …/runs/stream`, left after some frames. With `cancel` the run is cancelled by that."""
        body = {
            "assistant_id": thread.graph, "input": run_input(thread.graph, asked.steps, 0.05),
            "metadata": {"sim": asked.number}, "multitask_strategy": asked.strategy, "if_not_exists": "create",
            "on_disconnect": on_disconnect, "stream_mode": list(V1_MODES),
        }  # fmt: skip
        client = self._world.clients[api]
        path = f"/threads/{thread.thread_id}/runs/stream"
        try:
            async with asyncio.timeout(STREAM_S), client.stream("POST", path, json=body) as answer:
                asked.status = answer.status_code
                asked.outcome = "accepted" if answer.status_code == 200 else "refused"
                if answer.status_code >= 500:
                    asked.outcome = "unknown"
                if answer.status_code == 500:
                    self.wrong.append(f"POST {path}: 500 {(await answer.aread()).decode()}")
                if asked.outcome == "accepted":
                    asked.run_id = answer.headers["content-location"].rpartition("/")[2]
                    async for _ in frames(answer.aiter_bytes()):
                        count -= 1
                        if count <= 0:
                            break
        except httpx.ConnectError:
            asked.outcome = "refused"
        except (TimeoutError, httpx.TransportError) as error:
            asked.said = repr(error)
            if asked.outcome == "sent":
                asked.outcome = "unknown"
        asked.answered_at = time.monotonic()

    async def cancel(self, asked: Asked, thread: Thread, api: int) -> None:
        """Cancel the run `asked.target`, to interrupt it or to roll it back."""
        path = f"/threads/{thread.thread_id}/runs/{asked.target}/cancel"
        await self._send(asked, api, "POST", path, params={"action": asked.action})

    async def open_interrupt(self, thread: Thread, api: int) -> str | None:
        """An interrupt that the thread waits on, as its row tells."""
        try:
            answer = await self._world.clients[api].get(f"/threads/{thread.thread_id}")
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            return None
        waiting = [each["id"] for group in answer.json()["interrupts"].values() for each in group]
        return waiting[0] if waiting else None

    async def respond(self, askeds: list[Asked], thread: Thread, api: int, how: str) -> None:
        """Answer an interrupt: rightly, with a wrong id, twice in turn, or on both APIs at once."""
        found = WRONG_ID if how == "wrong" else await self.open_interrupt(thread, api)
        if found is None:
            found = WRONG_ID
        for asked in askeds:
            asked.target = found
        if how == "race":
            await asyncio.gather(*(self._respond(a, thread, i % 2) for i, a in enumerate(askeds)))
            return
        for asked in askeds:
            await self._respond(asked, thread, api)

    async def _respond(self, asked: Asked, thread: Thread, api: int) -> None:
        params: dict[str, Any] = {
            "namespace": [], "interrupt_id": asked.target, "response": f"yes {asked.number}",
            "metadata": {"sim": asked.number},
        }  # fmt: skip
        command = {"id": asked.number, "method": "input.respond", "params": params}
        answer = await self._send(asked, api, "POST", f"/threads/{thread.thread_id}/commands", json=command)
        if answer is not None and asked.outcome == "accepted":
            asked.run_id = answer.json()["result"]["run_id"]

    async def delete(self, asked: Asked, thread: Thread, api: int) -> None:
        """`DELETE /threads/…`."""
        await self._send(asked, api, "DELETE", f"/threads/{thread.thread_id}")

    async def post_state(self, asked: Asked, thread: Thread, api: int) -> None:
        """`POST …/state`."""
        node = {"counter": "step", "two_questions": "right", "approval": "act"}[thread.graph]
        values = {"counter": {"count": 3, "steps": 3}, "two_questions": {"answers": ["posted"]},
                  "approval": {"result": "posted"}}[thread.graph]  # fmt: skip
        await self._send(asked, api, "POST", f"/threads/{thread.thread_id}/state",
                         json={"values": values, "as_node": node})  # fmt: skip

    async def bad(self, asked: Asked, api: int, which: int) -> str:
        """Something that must be refused and leave nothing; the thread that it names."""
        thread_id = new_thread()
        run = {"assistant_id": "counter", "input": {"count": 0, "steps": 1}, "metadata": {"sim": asked.number}}
        create = {**run, "if_not_exists": "create"}
        runs, commands = f"/threads/{thread_id}/runs", f"/threads/{thread_id}/commands"
        start = {"id": 1, "method": "run.start", "params": run}
        bads: list[tuple[str, dict[str, Any]]] = [
            (runs, {"content": b'{"assistant_id": "counter", '}),
            (runs, {"json": {**create, "assistant_id": "nobody"}}),
            (runs, {"json": {**create, "assistant_id": new_thread()}}),
            (runs, {"json": {**create, "multitask_strategy": "push"}}),
            (runs, {"json": {**create, "after_seconds": -1}}),
            (runs, {"json": {**create, "stream_mode": ["nothing"]}}),
            (runs, {"json": run}),
            ("/threads/a.b.*/runs", {"json": create}),
            (f"{runs}/{new_thread()}/cancel", {}),
            (commands, {"content": b'{"id": 1, "method"'}),
            (commands, {"json": {**start, "id": -1}}),
            (commands, {"json": {**start, "method": "run.stop"}}),
            (commands, {"json": {**start, "params": {**run, "assistant_id": "nobody"}}}),
            (commands, {"json": {"id": 1, "method": "input.respond", "params": {
                "namespace": [], "interrupt_id": WRONG_ID, "response": 1}}}),
            ("/threads", {"json": {"thread_id": thread_id, "metadata": 5}}),
            (f"/threads/{thread_id}/state", {"json": {"values": {"count": 1}}}),
        ]  # fmt: skip
        path, request = bads[which % len(bads)]
        await self._send(asked, api, "POST", path, **request)
        if asked.outcome == "accepted":
            self.wrong.append(f"POST {path} was accepted: {asked.status} {asked.said}")
        return thread_id
