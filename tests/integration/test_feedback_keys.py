"""`feedback_keys` is accepted; without a service that collects feedback no address for it is made up."""

import httpx
from langgraph_sdk import get_client

from testkit.client import new_thread
from testkit.stack import Stack


async def test_no_feedback_is_promised(live: Stack) -> None:
    client, thread_id = get_client(url=live.url), new_thread()
    graph_input = {"steps": 1, "delay_s": 0}
    events = [
        part.event
        async for part in client.runs.stream(
            thread_id, "counter", input=graph_input, feedback_keys=["rating"], if_not_exists="create"
        )
    ]
    assert events[0] == "metadata"
    assert set(events) == {"metadata", "values"}
    # The SDK has no such parameter for `wait`.
    body = {"assistant_id": "counter", "input": graph_input, "feedback_keys": ["rating"]}
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        result = (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).raise_for_status().json()
    assert result
    assert "__feedback__" not in result
