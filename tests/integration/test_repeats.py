"""`Idempotency-Key` on everything that creates: the same request again finds what the first one made."""

from typing import Any

import httpx
import pytest

from testkit.client import new_thread
from testkit.stack import Stack

RUN: dict[str, Any] = {"assistant_id": "counter", "input": {"steps": 1, "delay_s": 0}}
OTHER: dict[str, Any] = {**RUN, "input": {"steps": 2, "delay_s": 0}}
DAILY = {"schedule": "0 4 * * *", "enabled": False}
SAME: dict[str, tuple[str, Any, Any]] = {
    "thread": ("/threads", {"metadata": {"a": 1}}, {"metadata": {"a": 2}}),
    "assistant": ("/assistants", {"graph_id": "counter", "name": "a"}, {"graph_id": "counter", "name": "b"}),
    "run on a thread": ("/threads/{thread}/runs", RUN, OTHER),
    "run": ("/runs", RUN, OTHER),
    "batch": ("/runs/batch", [RUN, RUN], [RUN, OTHER]),
    "cron": ("/runs/crons", {**RUN, **DAILY}, {**OTHER, **DAILY}),
    "cron on a thread": ("/threads/{thread}/runs/crons", {**RUN, **DAILY}, {**RUN, **DAILY, "schedule": "0 5 * * *"}),
}


def ids(answer: Any) -> Any:
    """What was made."""
    names = ("cron_id", "run_id", "thread_id", "assistant_id")
    return [[each.get(name) for name in names] for each in (answer if isinstance(answer, list) else [answer])]


@pytest.mark.parametrize("what", SAME)
def test_a_repeated_request_makes_nothing_new(live: Stack, what: str) -> None:
    path, body, other = SAME[what]
    with httpx.Client(base_url=live.url, headers={"idempotency-key": new_thread()}, timeout=30) as http:
        thread = httpx.post(f"{live.url}/threads", json={}).json()["thread_id"]
        path = path.format(thread=thread)
        first = ids(http.post(path, json=body).raise_for_status().json())
        assert ids(http.post(path, json=body).raise_for_status().json()) == first
        refused = http.post(path, json=other)
        assert (refused.status_code, refused.json()["detail"][0]["type"]) == (422, "idempotency_key_reused")
        fresh = http.post(path, json=body, headers={"idempotency-key": new_thread()}).raise_for_status()
        assert ids(fresh.json()) != first


def test_a_repeated_copy_is_one_copy(live: Stack) -> None:
    with httpx.Client(base_url=live.url, timeout=30) as http:
        one, two = (http.post("/threads", json={}).json()["thread_id"] for _ in range(2))
        keyed = {"idempotency-key": new_thread()}
        first = http.post(f"/threads/{one}/copy", headers=keyed).raise_for_status().json()["thread_id"]
        assert http.post(f"/threads/{one}/copy", headers=keyed).json()["thread_id"] == first
        assert http.post(f"/threads/{two}/copy", headers=keyed).status_code == 422
        assert http.post(f"/threads/{one}/copy").json()["thread_id"] != first
