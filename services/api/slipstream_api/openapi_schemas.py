"""The components of the API's description: most are made from the types that the routes read and write."""

from typing import Any, Final

import msgspec

from slipstream_api import runs, threads
from slipstream_api.routes import assistants, crons, stateless, states, store, thread_search
from slipstream_api.routes import threads as thread_routes
from slipstream_postgres import rows, storage
from slipstream_postgres.crons import CronRow

Schema = dict[str, Any]
PREFIX: Final = "#/components/schemas/"
TYPES: Final[tuple[Any, ...]] = (
    runs.RunCreate, threads.ThreadCreate, thread_routes.ThreadPatch, thread_routes.ThreadPrune,
    thread_search.ThreadSearch, states.StateAt, states.StateUpdate, states.History, stateless.RunsCancel,
    assistants.AssistantCreate, assistants.AssistantPatch, assistants.AssistantSearch,
    assistants.VersionSearch, assistants.VersionChoice, crons.CronCreate, crons.CronPatch, crons.CronSearch,
 store.ItemPut, store.ItemDelete, store.ItemSearch, store.NamespaceList,
    rows.ThreadRow, rows.RunRow, rows.AssistantRow, rows.AssistantVersionRow, CronRow,
    storage.ThreadStorage,
)  # fmt: skip
_REFS, _MADE = msgspec.json.schema_components(TYPES, ref_template=PREFIX + "{name}")
_OF_TYPE: Final[dict[Any, Schema]] = dict(zip(TYPES, _REFS, strict=True))

OBJECT: Final[Schema] = {"type": "object"}
INTEGER: Final[Schema] = {"type": "integer"}


def named(name: str) -> Schema:
    """A component by its name."""
    return {"$ref": PREFIX + name}


def of(kind: Any) -> Schema:
    """The schema of a type, or a schema as it is."""
    found: Schema = kind if isinstance(kind, dict) else _OF_TYPE[kind]
    return found


def listed(kind: Any) -> Schema:
    """A list of these."""
    return {"type": "array", "items": of(kind)}


def either(*kinds: Any) -> Schema:
    """One of these."""
    return {"anyOf": [of(kind) for kind in kinds]}


def both(*kinds: Any) -> Schema:
    """All of these at once."""
    return {"allOf": [of(kind) for kind in kinds]}


def holding(**properties: Schema) -> Schema:
    """An object with these fields."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _nullable(schema: Schema, title: str, description: str) -> Schema:
    return {"anyOf": [schema, {"type": "null"}], "title": title, "description": description}


COMPONENTS: Final[Schema] = {
    **_MADE,
    "EventStreamRequest": {
        "type": "object",
        "title": "EventStreamRequest",
        "required": ["channels"],
        "properties": {
            "channels": {
                "type": "array",
                "items": {"type": "string"},
                "title": "Channels",
                "description": "Channels to carry: values, updates, messages, tools, lifecycle, input, "
                "checkpoints, tasks, custom, custom:<name>.",
            },
            "namespaces": _nullable(
                {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
                "Namespaces",
                "Subgraph paths to carry, by prefix.",
            ),
            "depth": _nullable({"type": "integer", "minimum": 0}, "Depth", "Levels below the prefix to carry."),
            "since": _nullable(
                {"type": "integer", "minimum": 0},
                "Since",
                "The last seq that the client has; the stream goes on behind it.",
            ),
        },
    },
    "CommandEnvelope": {
        "type": "object",
        "title": "CommandEnvelope",
        "required": ["id", "method"],
        "properties": {"id": {"type": "integer", "minimum": 0}, "method": {"type": "string"}, "params": OBJECT},
    },
    "CommandAnswer": {
        "type": "object",
        "title": "CommandAnswer",
        "required": ["type", "id"],
        "properties": {
            "type": {"enum": ["success", "error"]},
            "id": {"type": ["integer", "null"]},
            "result": {},
            "error": {"type": "string"},
            "message": {"type": "string"},
        },
    },
    "JsonRpcMessage": {
        "type": "object",
        "title": "JsonRpcMessage",
        "required": ["jsonrpc"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "method": {"type": "string"},
            "params": OBJECT,
        },
    },
    "JsonRpcAnswer": {
        "type": "object",
        "title": "JsonRpcAnswer",
        "required": ["jsonrpc", "id"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "result": OBJECT,
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": INTEGER, "message": {"type": "string"}},
            },
        },
    },
    "Error": {"title": "Error", **holding(detail={"type": "string"})},
    "HTTPValidationError": {
        "type": "object",
        "title": "HTTPValidationError",
        "properties": {"detail": {"type": "array", "items": named("ValidationError"), "title": "Detail"}},
    },
    "ValidationError": {
        "type": "object",
        "title": "ValidationError",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "title": "Location",
            },
            "msg": {"type": "string", "title": "Message"},
            "type": {"type": "string", "title": "Error Type"},
            "input": {"title": "Input"},
            "ctx": {"type": "object", "title": "Context"},
        },
    },
}
