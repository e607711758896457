"""Pages of any origin may call the API, and read what the browser SDKs read."""

import httpx
import pytest

from testkit.client import new_thread
from testkit.stack import Stack

PAGE = {"origin": "https://app.example"}
EXPOSED = {"location", "content-location", "x-pagination-total", "x-pagination-next", "x-pagination-total-relation"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_preflight_allows_any_method_and_header(live: Stack, method: str) -> None:
    asked = {"access-control-request-method": method, "access-control-request-headers": "x-api-key, x-anything"}
    answer = httpx.options(f"{live.url}/threads/{new_thread()}/commands", headers={**PAGE, **asked})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {"x-api-key", "x-anything"} <= set(allowed)
    assert "access-control-allow-credentials" not in answer.headers


def test_answers_streams_and_errors_are_readable_by_a_page(live: Stack) -> None:
    with httpx.Client(base_url=live.url, headers=PAGE) as http:
        answers = [
            http.post("/threads/search", json={}),
            http.post("/runs/stream", json={"assistant_id": "counter", "input": {"steps": 1, "delay_s": 0}}),
            http.get(f"/threads/{new_thread()}"),
            http.get("/no-such-route"),
            http.post("/threads/search", content=b"{"),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 404, 422]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert set(answer.headers["access-control-expose-headers"].split(", ")) == EXPOSED
    assert answers[1].headers["location"] and answers[1].headers["content-location"]
