"""What the checkpoints of a thread take."""

from typing import Any

import httpx
from langgraph_sdk import get_client

from testkit.client import new_thread
from testkit.sdk import HELLO
from testkit.stack import Stack


async def test_the_bytes_of_a_thread_are_those_of_its_parts(live: Stack) -> None:
    sdk = get_client(url=live.url)
    thread_id = (await sdk.threads.create())["thread_id"]

    async def stored() -> dict[str, Any]:
        found: Any = await sdk.http.get(f"/threads/{thread_id}/storage")
        return dict(found)

    assert (await stored())["total_bytes"] == 0
    await sdk.runs.wait(thread_id, "chat", input=HELLO)
    first = await stored()
    parts = [first[name]["bytes"] for name in ("checkpoints", "channel_values", "pending_writes")]
    assert first["thread_id"] == thread_id and first["total_bytes"] == sum(parts) > 0
    assert first["checkpoints"]["count"] == len(await sdk.threads.get_history(thread_id, limit=100))
    assert first["channel_values"]["channels"]["messages"]["bytes"] > 0
    await sdk.http.post("/threads/prune", json={"thread_ids": [thread_id], "strategy": "keep_latest"})
    pruned = await stored()
    assert pruned["checkpoints"]["count"] == 1 and 0 < pruned["total_bytes"] < first["total_bytes"]
    assert httpx.get(f"{live.url}/threads/{new_thread()}/storage").status_code == 404
