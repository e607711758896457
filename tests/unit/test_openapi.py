"""The two event-streaming operations are described as the seed documents have them."""

import re
from typing import Any

from slipstream_api.openapi import DOCUMENT, PAGE
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
    assert all(o["summary"] in PAGE for o in operations)


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
