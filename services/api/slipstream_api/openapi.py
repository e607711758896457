"""The API's description: OpenAPI 3.1 as data, and a readable page made from it. No framework generates it, so it says
exactly what the routes do.
"""

import html
from typing import Any


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


INVALID: dict[str, Any] = {
    "description": "Validation Error",
    "content": {"application/json": {"schema": _ref("HTTPValidationError")}},
}
UNAVAILABLE = {"description": "A part that is needed does not answer; retry after `Retry-After` seconds"}
ANY_JSON: dict[str, Any] = {"description": "Success", "content": {"application/json": {"schema": {}}}}
SSE: dict[str, Any] = {"description": "SSE stream", "content": {"text/event-stream": {}}}
PROMETHEUS: dict[str, Any] = {"description": "Figures for Prometheus", "content": {"text/plain": {}}}
THREAD = ("thread_id", "path", "string")
RUN = ("run_id", "path", "string")
Parameter = tuple[str, str, str]


def _parameter(name: str, where: str, kind: str) -> dict[str, Any]:
    title = " ".join(word.capitalize() for word in name.replace("-", "_").split("_"))
    return {"name": name, "in": where, "required": where == "path", "schema": {"type": kind, "title": title}}


def _operation(
    tag: str,
    summary: str,
    parameters: tuple[Parameter, ...] = (),
    body: bool = False,
    success: dict[str, Any] = ANY_JSON,
    codes: tuple[str, ...] = ("404",),
    status: str = "200",
    other: dict[str, str] | None = None,
) -> dict[str, Any]:
    """An operation. `other` are further answers of success: by status, when it comes."""
    texts = {
        "400": "Invalid request",
        "404": "Not found",
        "409": "The state of what is named does not allow it",
        "413": "The body is too large",
    }
    responses: dict[str, Any] = {status: success, **{code: {"description": texts[code]} for code in codes}}
    responses |= {"422": INVALID, "503": UNAVAILABLE}
    responses |= {code: {"description": text} for code, text in (other or {}).items()}
    out: dict[str, Any] = {"tags": [tag], "summary": summary, "operationId": summary.lower().replace(" ", "_")}
    if parameters:
        out["parameters"] = [_parameter(*each) for each in parameters]
    if body:
        out["requestBody"] = _body({"type": "object"})
        out["responses"] = {**responses, "413": {"description": texts["413"]}}
    else:
        out["responses"] = responses
    return out


def _event_stream() -> dict[str, Any]:
    out = _operation(
        "Event Streaming",
        "Stream Thread Events",
        (THREAD,),
        codes=("400", "404", "413"),
        success={**SSE, "description": "SSE stream of protocol event envelopes"},
    )
    out["operationId"] = "stream_thread_events_threads__thread_id__stream_events_post"
    out["description"] = (
        "A channel-filtered stream of everything that happens on the thread, over all of its runs. Each frame's data "
        "is a protocol event; its id is the `seq` that a client sends back as `since` (or `Last-Event-ID`) to resume."
    )
    out["requestBody"] = _body(_ref("EventStreamRequest"))
    return out


def _commands() -> dict[str, Any]:
    out = _operation("Event Streaming", "Execute Thread Command", (THREAD,), codes=("400", "413"))
    out["operationId"] = "execute_thread_command_threads__thread_id__commands_post"
    out["requestBody"] = _body(_ref("CommandEnvelope"))
    return out


def _assistants() -> dict[str, Any]:
    one, tag = "/assistants/{assistant_id}", "Assistants"
    key = ("assistant_id", "path", "string")
    recurse, namespace = ("recurse", "query", "boolean"), ("namespace", "path", "string")
    gone = {"description": "Gone"}
    return {
        "/assistants": {"post": _operation(tag, "Create Assistant", body=True, codes=("409",))},
        "/assistants/search": {"post": _operation(tag, "Search Assistants", body=True, codes=())},
        "/assistants/count": {"post": _operation(tag, "Count Assistants", body=True, codes=())},
        one: {
            "get": _operation(tag, "Get Assistant", (key,)),
            "patch": _operation(tag, "Patch Assistant", (key,), body=True),
            "delete": _operation(
                tag, "Delete Assistant", (key, ("delete_threads", "query", "boolean")), success=gone, status="204",
                codes=("404", "409"),
            ),
        },
        f"{one}/versions": {"post": _operation(tag, "List Assistant Versions", (key,), body=True)},
        f"{one}/latest": {"post": _operation(tag, "Set Latest Assistant Version", (key,), body=True)},
        f"{one}/graph": {"get": _operation(tag, "Get Assistant Graph", (key, ("xray", "query", "string")))},
        f"{one}/schemas": {"get": _operation(tag, "Get Assistant Schemas", (key,))},
        f"{one}/subgraphs": {"get": _operation(tag, "Get Assistant Subgraphs", (key, recurse))},
        f"{one}/subgraphs/{{namespace}}": {
            "get": _operation(tag, "Get Assistant Subgraph", (key, namespace, recurse))
        },
    }  # fmt: skip


def _state_paths(thread: str) -> dict[str, Any]:
    of_query: tuple[Parameter, ...] = (("subgraphs", "query", "boolean"), ("select", "query", "string"))
    at = ("checkpoint_id", "path", "string")
    page: tuple[Parameter, ...] = (("limit", "query", "integer"), ("before", "query", "string"))
    return {
        f"{thread}/state": {
            "get": _operation("Threads", "Get Thread State", (THREAD, *of_query)),
            "post": _operation("Threads", "Update Thread State", (THREAD,), body=True, codes=("400", "404", "409")),
        },
        f"{thread}/state/{{checkpoint_id}}": {
            "get": _operation("Threads", "Get Thread State At Checkpoint", (THREAD, at, *of_query))
        },
        f"{thread}/state/checkpoint": {
            "post": _operation("Threads", "Get Thread State At Checkpoint Post", (THREAD,), body=True)
        },
        f"{thread}/history": {
            "get": _operation("Threads", "Get Thread History", (THREAD, *page, ("select", "query", "string"))),
            "post": _operation("Threads", "Get Thread History Post", (THREAD,), body=True),
        },
    }


def _cron_paths() -> dict[str, Any]:
    cron: tuple[Parameter, ...] = (("cron_id", "path", "string"),)
    return {
        "/runs/crons": {"post": _operation("Crons", "Create Cron", body=True, codes=("404", "409"))},
        "/threads/{thread_id}/runs/crons": {
            "post": _operation("Crons", "Create Thread Cron", (THREAD,), body=True, codes=("404", "409"))
        },
        "/runs/crons/search": {"post": _operation("Crons", "Search Crons", body=True, codes=())},
        "/runs/crons/count": {"post": _operation("Crons", "Count Crons", body=True, codes=())},
        "/runs/crons/{cron_id}": {
            "get": _operation("Crons", "Get Cron", cron),
            "patch": _operation("Crons", "Update Cron", cron, body=True),
            "delete": _operation("Crons", "Delete Cron", cron, success={"description": "Gone"}, status="204"),
        },
    }


def _store_paths() -> dict[str, Any]:
    done = {"description": "Success"}
    place: tuple[Parameter, ...] = (("namespace", "query", "string"), ("key", "query", "string"))
    return {
        "/store/items": {
            "put": _operation("Store", "Put Item", body=True, success=done, codes=(), status="204"),
            "get": _operation("Store", "Get Item", (*place, ("refresh_ttl", "query", "boolean")), codes=("413",)),
            "delete": _operation("Store", "Delete Item", body=True, success=done, codes=(), status="204"),
        },
        "/store/items/search": {"post": _operation("Store", "Search Items", body=True, codes=())},
        "/store/namespaces": {"post": _operation("Store", "List Namespaces", body=True, codes=())},
    }


def _run_paths(thread: str, run: str) -> dict[str, Any]:
    stream_codes = ("400", "404", "409")
    return {
        f"{thread}/runs": {
            "post": _operation("Thread Runs", "Create Run", (THREAD,), body=True, codes=stream_codes),
            "get": _operation(
                "Thread Runs",
                "List Runs",
                (THREAD, ("limit", "query", "integer"), ("offset", "query", "integer"), ("status", "query", "string")),
            ),
        },
        f"{thread}/runs/stream": {
            "post": _operation(
                "Thread Runs", "Create And Stream Run", (THREAD,), body=True, success=SSE, codes=stream_codes
            )
        },
        f"{thread}/runs/wait": {
            "post": _operation("Thread Runs", "Create And Wait Run", (THREAD,), body=True, codes=stream_codes)
        },
        run: {
            "get": _operation("Thread Runs", "Get Run", (THREAD, RUN)),
            "delete": _operation(
                "Thread Runs",
                "Delete Run",
                (THREAD, RUN),
                success={"description": "Gone"},
                status="204",
                codes=("404", "409"),
            ),
        },
        f"{run}/join": {"get": _operation("Thread Runs", "Join Run", (THREAD, RUN))},
        f"{run}/stream": {"get": _operation("Thread Runs", "Join Run Stream", (THREAD, RUN), success=SSE)},
        f"{run}/cancel": {
            "post": _operation(
                "Thread Runs",
                "Cancel Run",
                (THREAD, RUN, ("action", "query", "string"), ("wait", "query", "boolean")),
                status="202",
                other={"200": "With `wait`: the last values, once the run has stopped"},
            )
        },
        "/runs/stream": {
            "post": _operation("Stateless Runs", "Create And Stream Stateless Run", body=True, success=SSE)
        },
        "/runs/wait": {"post": _operation("Stateless Runs", "Create And Wait Stateless Run", body=True)},
        "/runs": {"post": _operation("Stateless Runs", "Create Stateless Run", body=True)},
        "/runs/batch": {"post": _operation("Stateless Runs", "Create Run Batch", body=True)},
        "/runs/cancel": {
            "post": _operation(
                "Thread Runs",
                "Cancel Runs",
                (("action", "query", "string"),),
                body=True,
                success={"description": "The runs stop"},
                status="204",
            )
        },
    }


def _paths() -> dict[str, Any]:
    thread = "/threads/{thread_id}"
    return {
        f"{thread}/stream/events": {"post": _event_stream()},
        f"{thread}/stream": {
            "get": _operation("Threads", "Stream Thread", (THREAD, ("stream_mode", "query", "string")), success=SSE),
            "post": {
                **_event_stream(),
                "summary": "Stream Thread Events (Specification)",
                "operationId": "stream_thread_events_at_the_specified_path",
            },
        },
        f"{thread}/commands": {"post": _commands()},
        "/threads": {"post": _operation("Threads", "Create Thread", body=True, codes=("400", "409"))},
        "/threads/search": {"post": _operation("Threads", "Search Threads", body=True, codes=())},
        "/threads/count": {"post": _operation("Threads", "Count Threads", body=True, codes=())},
        thread: {
            "get": _operation("Threads", "Get Thread", (THREAD,)),
            "patch": _operation(
                "Threads", "Patch Thread", (THREAD,), body=True, other={"204": "With `Prefer: return=minimal`"}
            ),
            "delete": _operation("Threads", "Delete Thread", (THREAD,), success={"description": "Gone"}, status="204"),
        },
        f"{thread}/copy": {"post": _operation("Threads", "Copy Thread", (THREAD,))},
        "/threads/prune": {"post": _operation("Threads", "Prune Threads", body=True, codes=())},
        **_state_paths(thread),
        **_run_paths(thread, f"{thread}/runs/{{run_id}}"),
        **_assistants(),
        **_cron_paths(),
        **_store_paths(),
        "/metrics": {"get": _operation("Health", "Metrics", success=PROMETHEUS, codes=())},
        **{
            path: {"get": _operation("Health", summary, codes=())}
            for path, summary in (
                ("/info", "Server Info"),
                ("/openapi.json", "Description"),
                ("/docs", "Description To Read"),
                ("/ok", "Ok"),
                ("/health", "Health"),
                ("/live", "Live"),
                ("/ready", "Ready"),
            )
        },
    }


def _nullable(schema: dict[str, Any], title: str, description: str) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "title": title, "description": description}


SCHEMAS: dict[str, Any] = {
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
        "properties": {
            "id": {"type": "integer", "minimum": 0},
            "method": {"type": "string"},
            "params": {"type": "object"},
        },
    },
    "HTTPValidationError": {
        "type": "object",
        "title": "HTTPValidationError",
        "properties": {"detail": {"type": "array", "items": _ref("ValidationError"), "title": "Detail"}},
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

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Slipstream",
        "version": "0.1.0",
        "description": "An Agent Protocol server for LangGraph on an event log.",
    },
    "tags": [
        {"name": name}
        for name in (
            "Assistants",
            "Threads",
            "Thread Runs",
            "Stateless Runs",
            "Crons",
            "Store",
            "Event Streaming",
            "Health",
        )
    ],
    "paths": _paths(),
    "components": {"schemas": SCHEMAS},
}


def _rows() -> str:
    out: list[str] = []
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            codes = ", ".join(sorted(operation["responses"]))
            text = html.escape(operation.get("description", ""))
            out.append(
                f"<tr><td><b>{method.upper()}</b></td><td><code>{html.escape(path)}</code><br><small>{text}</small></td>"
                f"<td>{html.escape(operation['summary'])}</td><td>{codes}</td></tr>"
            )
    return "".join(out)


PAGE = (
    "<!doctype html><meta charset=utf-8><title>Slipstream API</title><style>body{font:15px system-ui;margin:2em auto;"
    "max-width:70em}td{padding:.4em .8em;border-top:1px solid #ddd;vertical-align:top}small{color:#555}</style>"
    "<h1>Slipstream API</h1><p>The description for programs is <a href=/openapi.json>openapi.json</a>.</p><table>"
    f"{_rows()}</table>"
)
