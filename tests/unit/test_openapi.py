"""The two event-streaming operations are described as the seed documents have them."""

import re
from typing import Any

import pytest

from slipstream_api.app import ROUTES
from slipstream_api.auth.middleware import OPEN
from slipstream_api.openapi import DOCUMENT, page, without
from slipstream_api.routes import assistant_graphs, assistants

SEED_OPERATION = "stream_thread_events_threads__thread_id__stream_events_post"
STRINGS = {"items": {"type": "string"}, "type": "array"}
SEED_PROPERTIES: dict[str, Any] = {
    "channels": {"items": {"type": "string"}, "type": "array"},
    "namespaces": {"anyOf": [{"items": STRINGS, "type": "array"}, {"type": "null"}]},
    "depth": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
    "since": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
}


def test_the_event_stream_is_the_seeds() -> None:
    operation = DOCUMENT["paths"]["/threads/{thread_id}/stream/events"]["post"]
    assert operation["operationId"] == SEED_OPERATION
    assert operation["tags"] == ["Event Streaming"] and operation["summary"] == "Stream Thread Events"
    assert {"200", "400", "404", "422", "503"} <= set(operation["responses"])
    assert operation["responses"]["200"]["content"] == {"text/event-stream": {}}
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/EventStreamRequest")
    (parameter,) = operation["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("thread_id", "path", True)


def test_the_request_and_error_schemas_are_the_seeds() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    request = schemas["EventStreamRequest"]
    assert request["required"] == ["channels"]
    shown = {
        name: {key: value for key, value in schema.items() if key in ("type", "items", "anyOf")}
        for name, schema in request["properties"].items()
    }
    assert shown == SEED_PROPERTIES
    assert schemas["ValidationError"]["required"] == ["loc", "msg", "type"]
    assert set(schemas["ValidationError"]["properties"]) == {"loc", "msg", "type", "input", "ctx"}


def test_every_operation_is_on_the_page() -> None:
    operations = [o for path in DOCUMENT["paths"].values() for o in path.values()]
    assert DOCUMENT["openapi"] == "3.1.0"
    assert len({o["operationId"] for o in operations}) == len(operations)
    assert all(o["summary"] in page(DOCUMENT) for o in operations)


def test_the_assistants_are_described_as_they_are_served() -> None:
    served = {
        (re.sub(r":str}", "}", path), str(method).lower())
        for route in (*assistants.ROUTES, *assistant_graphs.ROUTES)
        for path in route.paths
        for method in route.http_methods
    }
    described = {
        (path, method)
        for path, operations in DOCUMENT["paths"].items()
        if path.startswith("/assistants")
        for method in operations
    }
    assert described == served


def test_who_must_say_who_they_are_is_described() -> None:
    for route in ROUTES:
        is_open = route.opt.get("auth") == OPEN["auth"]
        for path in route.paths:
            for method in getattr(route, "http_methods", ()):
                described = DOCUMENT["paths"][re.sub(r":str}", "}", path)][str(method).lower()]["responses"]
                assert ({"401", "403"} <= described.keys()) is not is_open, path


@pytest.mark.parametrize(
    ("group", "gone", "left"),
    [
        ("store", "/store/items", "/threads"),
        ("assistants", "/assistants/{assistant_id}/graph", "/runs"),
        ("runs", "/threads/{thread_id}/runs/{run_id}", "/threads/{thread_id}"),
        ("threads", "/threads/{thread_id}/state", "/assistants"),
        ("meta", "/metrics", "/ok"),
        ("mcp", "/mcp", "/a2a/{assistant_id}"),
        ("a2a", "/.well-known/agent-card.json", "/mcp"),
    ],
)
def test_what_is_not_served_is_not_described(group: str, gone: str, left: str) -> None:
    described = without({group})
    assert gone in DOCUMENT["paths"] and gone not in described["paths"] and left in described["paths"]
    assert f"<code>{gone}</code>" not in page(described)
    assert without(()) == DOCUMENT


# The second seed: a run that is created and streamed. It has fields and a response, and no OpenAPI of its own.
SEED_FIELDS = {
    "assistant_id", "input", "config", "context", "checkpoint", "stream_mode", "on_disconnect", "on_completion",
    "multitask_strategy", "command", "interrupt_before", "interrupt_after", "stream_subgraphs", "metadata",
}  # fmt: skip


def test_the_stream_of_a_new_run_is_the_seeds() -> None:
    operation = DOCUMENT["paths"]["/threads/{thread_id}/runs/stream"]["post"]
    assert operation["summary"] == "Create And Stream Run"
    assert operation["responses"]["200"]["content"] == {"text/event-stream": {}}
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    assert schema["required"] == ["assistant_id"] and schema["properties"].keys() >= SEED_FIELDS
    # `stream` asks for what the path says already: fields that nobody knows are ignored.
    assert "additionalProperties" not in schema
