"""A v1 stream that broke: the run goes on where it may, and who comes back gets the rest in the same modes."""

import httpx
import pytest

from testkit.client import Client, Frame, frames
from testkit.stack import Stack

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


async def shown(http: httpx.AsyncClient, path: str, **headers: str) -> list[Frame]:
    """The frames of a joined stream to its end."""
    async with http.stream("GET", path, headers=headers) as stream:
        assert stream.status_code == 200
        return [frame async for frame in frames(stream.aiter_raw()) if frame.event != ":"]


@pytest.mark.parametrize("kept", [{"stream_resumable": True}, {"on_disconnect": "continue"}], ids=str)
async def test_a_broken_stream_goes_on_in_the_modes_of_its_run(live: Stack, kept: dict[str, object]) -> None:
    async with Client(live.url) as client:
        body = {"assistant_id": "counter", "input": {"steps": 5, "delay_s": 0.05}, "stream_mode": ["values", "custom"]}
        thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
        before: list[Frame] = []
        async with client.http.stream("POST", f"/threads/{thread_id}/runs/stream", json={**body, **kept}) as stream:
            path = stream.headers["location"]
            async for frame in frames(stream.aiter_raw()):
                if frame.event != ":":
                    before.append(frame)
                if len(before) == 3:
                    break
        rest = await shown(client.http, path, **{"last-event-id": before[-1].id})
        whole = await shown(client.http, path, **{"last-event-id": "-1"})
        assert [*before, *rest] == whole
        assert [frame for frame in whole if frame.event == "values"][-1].body["count"] == 5
        assert sum(frame.event == "custom" for frame in whole) == 5


async def test_a_joined_stream_shows_subgraphs_as_its_run_asked(live: Stack) -> None:
    async with Client(live.url) as client:
        body = {"assistant_id": "subgraphs", "input": HELLO, "stream_mode": ["custom"], "stream_subgraphs": True}
        thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
        run = (await client.http.post(f"/threads/{thread_id}/runs", json=body)).json()
        path = f"/threads/{thread_id}/runs/{run['run_id']}/stream"
        joined = await shown(client.http, path, **{"last-event-id": "-1"})
        assert any(frame.event.startswith("custom|team:") for frame in joined)
