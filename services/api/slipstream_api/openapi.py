"""The API's description: OpenAPI 3.1 as data, and a readable page made from it. No framework generates it, so it says
exactly what the routes do; a test asks every operation for what is described here.
"""

import html
from collections.abc import Collection
from typing import Any, Final

from slipstream_api import runs, threads
from slipstream_api.openapi_schemas import COMPONENTS, INTEGER, OBJECT, Schema, both, either, holding, listed, named, of
from slipstream_api.route_groups import AGENT_CARD, groups_of
from slipstream_api.routes import assistants, crons, stateless, states, store, thread_search
from slipstream_api.routes import threads as thread_routes
from slipstream_postgres import rows, storage
from slipstream_postgres.crons import CronRow

Parameter = tuple[str, str, str]


def _json(description: str, schema: Any) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": of(schema)}}}


def _typed(description: str, content_type: str) -> Schema:
    return {"description": description, "content": {content_type: {}}}


TEXTS: Final = {
    "400": "Invalid request",
    "401": "An `authenticate` handler knows nobody by these credentials",
    "403": "A handler refuses this caller",
    "404": "Not found",
    "409": "The state of what is named does not allow it",
    "413": "The body is too large",
    "503": "A part that is needed does not answer; retry after `Retry-After` seconds",
}
REFUSALS: Final = {status: _json(text, named("Error")) for status, text in TEXTS.items()} | {
    "422": _json("Validation Error", named("HTTPValidationError"))
}
"""What may go wrong, by status."""
OPEN_TAG: Final = "Health"
"""Operations that answer everybody."""
ANY: Final = _json("Success", {})
GONE: Final[Schema] = {"description": "Gone"}
DONE: Final[Schema] = {"description": "Success"}
SSE: Final = _typed("SSE stream", "text/event-stream")
PROMETHEUS: Final = _typed("Figures for Prometheus", "text/plain")
HTML: Final = _typed("A page", "text/html")
THREAD: Final = ("thread_id", "path", "string")
RUN: Final = ("run_id", "path", "string")
LAST_ID: Final = ("Last-Event-ID", "header", "string")
PAGE_OF: Final[tuple[Parameter, ...]] = (("limit", "query", "integer"), ("offset", "query", "integer"))


def _parameter(name: str, where: str, kind: str) -> Schema:
    title = " ".join(word.capitalize() for word in name.replace("-", "_").split("_"))
    return {"name": name, "in": where, "required": where == "path", "schema": {"type": kind, "title": title}}


def _operation(
    tag: str,
    summary: str,
    parameters: tuple[Parameter, ...] = (),
    body: Any = None,
    success: Any = ANY,
    codes: tuple[str, ...] = ("404",),
    status: str = "200",
    other: dict[str, Schema] | None = None,
) -> Schema:
    """An operation. `body` and `success` are types or schemas, `other` further answers by status."""
    answer = success if isinstance(success, dict) and "description" in success else _json("Success", success)
    guarded = () if tag == OPEN_TAG else ("401", "403")
    refused = (*codes, *guarded, "422", "503", *(() if body is None else ("413",)))
    out: Schema = {"tags": [tag], "summary": summary, "operationId": summary.lower().replace(" ", "_")}
    if parameters:
        out["parameters"] = [_parameter(*each) for each in parameters]
    if body is not None:
        out["requestBody"] = {"required": True, "content": {"application/json": {"schema": of(body)}}}
    out["responses"] = {status: answer, **{code: REFUSALS[code] for code in refused}, **(other or {})}
    return out


def _event_stream() -> Schema:
    out = _operation(
        "Event Streaming",
        "Stream Thread Events",
        (THREAD,),
        named("EventStreamRequest"),
        codes=("400", "404"),
        success={**SSE, "description": "SSE stream of protocol event envelopes"},
    )
    out["operationId"] = "stream_thread_events_threads__thread_id__stream_events_post"
    out["description"] = (
        "A channel-filtered stream of everything that happens on the thread, over all of its runs. Each frame's data "
        "is a protocol event; its id is the `seq` that a client sends back as `since` (or `Last-Event-ID`) to resume."
    )
    return out


def _commands() -> Schema:
    answer = named("CommandAnswer")
    out = _operation(
        "Event Streaming", "Execute Thread Command", (THREAD,), named("CommandEnvelope"), success=answer, codes=(),
        other={"400": _json("Not a command", either(answer, named("Error")))},
    )  # fmt: skip
    out["operationId"] = "execute_thread_command_threads__thread_id__commands_post"
    return out


def _assistants() -> Schema:
    one, tag = "/assistants/{assistant_id}", "Assistants"
    key, row = ("assistant_id", "path", "string"), rows.AssistantRow
    recurse, namespace = ("recurse", "query", "boolean"), ("namespace", "path", "string")
    searched = assistants.AssistantSearch
    return {
        "/assistants": {
            "post": _operation(tag, "Create Assistant", body=assistants.AssistantCreate, success=row, codes=("409",))
        },
        "/assistants/search": {
            "post": _operation(tag, "Search Assistants", body=searched, success=listed(OBJECT), codes=())
        },
        "/assistants/count": {"post": _operation(tag, "Count Assistants", body=searched, success=INTEGER, codes=())},
        one: {
            "get": _operation(tag, "Get Assistant", (key,), success=row),
            "patch": _operation(tag, "Patch Assistant", (key,), assistants.AssistantPatch, row),
            "delete": _operation(
                tag, "Delete Assistant", (key, ("delete_threads", "query", "boolean")), success=GONE, status="204",
                codes=("404", "409"),
            ),
        },
        f"{one}/versions": {
            "post": _operation(
                tag, "List Assistant Versions", (key,), assistants.VersionSearch, listed(rows.AssistantVersionRow)
            )
        },
        f"{one}/latest": {
            "post": _operation(tag, "Set Latest Assistant Version", (key,), assistants.VersionChoice, row)
        },
        f"{one}/graph": {
            "get": _operation(tag, "Get Assistant Graph", (key, ("xray", "query", "string")),
                              success=holding(nodes=listed(OBJECT), edges=listed(OBJECT)))
        },
        f"{one}/schemas": {"get": _operation(tag, "Get Assistant Schemas", (key,), success=OBJECT)},
        f"{one}/subgraphs": {"get": _operation(tag, "Get Assistant Subgraphs", (key, recurse), success=OBJECT)},
        f"{one}/subgraphs/{{namespace}}": {
            "get": _operation(tag, "Get Assistant Subgraph", (key, namespace, recurse), success=OBJECT)
        },
    }  # fmt: skip


def _thread_paths(thread: str) -> Schema:
    tag, row, searched = "Threads", rows.ThreadRow, thread_search.ThreadSearch
    minimal: Schema = {"204": {"description": "With `Prefer: return=minimal`"}}
    pruned = holding(pruned_count=INTEGER)
    return {
        "/threads": {
            "post": _operation(tag, "Create Thread", body=threads.ThreadCreate, success=row, codes=("400", "409"))
        },
        "/threads/search": {"post": _operation(tag, "Search Threads", body=searched, success=listed(OBJECT), codes=())},
        "/threads/count": {"post": _operation(tag, "Count Threads", body=searched, success=INTEGER, codes=())},
        thread: {
            "get": _operation(tag, "Get Thread", (THREAD, ("include", "query", "string")), success=row),
            "patch": _operation(tag, "Patch Thread", (THREAD,), thread_routes.ThreadPatch, row, other=minimal),
            "delete": _operation(tag, "Delete Thread", (THREAD,), success=GONE, status="204"),
        },
        f"{thread}/storage": {"get": _operation(tag, "Get Thread Storage", (THREAD,), success=storage.ThreadStorage)},
        f"{thread}/copy": {"post": _operation(tag, "Copy Thread", (THREAD,), success=row)},
        "/threads/prune": {
            "post": _operation(tag, "Prune Threads", body=thread_routes.ThreadPrune, success=pruned, codes=())
        },
    }


def _state_paths(thread: str) -> Schema:
    tag, states_of = "Threads", listed(OBJECT)
    of_query: tuple[Parameter, ...] = (("subgraphs", "query", "boolean"), ("select", "query", "string"))
    at = ("checkpoint_id", "path", "string")
    page: tuple[Parameter, ...] = (("limit", "query", "integer"), ("before", "query", "string"))
    where = holding(checkpoint=OBJECT, configurable=OBJECT, checkpoint_id={"type": "string"})
    return {
        f"{thread}/state": {
            "get": _operation(tag, "Get Thread State", (THREAD, *of_query), success=OBJECT),
            "post": _operation(
                tag, "Update Thread State", (THREAD,), states.StateUpdate, where, codes=("400", "404", "409")
            ),
        },
        f"{thread}/state/{{checkpoint_id}}": {
            "get": _operation(tag, "Get Thread State At Checkpoint", (THREAD, at, *of_query), success=OBJECT)
        },
        f"{thread}/state/checkpoint": {
            "post": _operation(tag, "Get Thread State At Checkpoint Post", (THREAD,), states.StateAt, OBJECT)
        },
        f"{thread}/history": {
            "get": _operation(
                tag, "Get Thread History", (THREAD, *page, ("select", "query", "string")), success=states_of
            ),
            "post": _operation(tag, "Get Thread History Post", (THREAD,), states.History, states_of),
        },
    }


def _cron_paths() -> Schema:
    cron: tuple[Parameter, ...] = (("cron_id", "path", "string"),)
    made, changed = both(crons.CronCreate, runs.RunCreate), crons.CronPatch
    codes = ("400", "404", "409")
    return {
        "/runs/crons": {"post": _operation("Crons", "Create Cron", body=made, success=CronRow, codes=codes)},
        "/threads/{thread_id}/runs/crons": {
            "post": _operation("Crons", "Create Thread Cron", (THREAD,), made, CronRow, codes)
        },
        "/runs/crons/search": {
            "post": _operation("Crons", "Search Crons", body=crons.CronSearch, success=listed(OBJECT), codes=())
        },
        "/runs/crons/count": {
            "post": _operation("Crons", "Count Crons", body=crons.CronSearch, success=INTEGER, codes=())
        },
        "/runs/crons/{cron_id}": {
            "get": _operation("Crons", "Get Cron", cron, success=CronRow),
            "patch": _operation("Crons", "Update Cron", cron, changed, CronRow, ("400", "404")),
            "delete": _operation("Crons", "Delete Cron", cron, success=GONE, status="204"),
        },
    }


def _store_paths() -> Schema:
    place: tuple[Parameter, ...] = (("namespace", "query", "string"), ("key", "query", "string"))
    item = either(OBJECT, {"type": "null"})
    of_get = (*place, ("refresh_ttl", "query", "boolean"))
    found, named_so = holding(items=listed(OBJECT)), holding(namespaces=listed(listed({"type": "string"})))
    return {
        "/store/items": {
            "put": _operation("Store", "Put Item", body=store.ItemPut, success=DONE, codes=(), status="204"),
            "get": _operation("Store", "Get Item", of_get, success=item, codes=("413",)),
            "delete": _operation("Store", "Delete Item", body=store.ItemDelete, success=DONE, codes=(), status="204"),
        },
        "/store/items/search": {
            "post": _operation("Store", "Search Items", body=store.ItemSearch, success=found, codes=())
        },
        "/store/namespaces": {
            "post": _operation("Store", "List Namespaces", body=store.NamespaceList, success=named_so, codes=())
        },
    }


def _run_paths(thread: str, run: str) -> Schema:
    tag, row, body = "Thread Runs", rows.RunRow, runs.RunCreate
    codes = ("400", "404", "409")
    modes, left = ("stream_mode", "query", "string"), ("cancel_on_disconnect", "query", "boolean")
    stopped = {"200": _json("With `wait`: the last values, once the run has stopped", {})}
    return {
        f"{thread}/runs": {
            "post": _operation(tag, "Create Run", (THREAD,), body, row, codes),
            "get": _operation(
                tag, "List Runs", (THREAD, *PAGE_OF, ("status", "query", "string"), ("select", "query", "string")),
                success=listed(OBJECT),
            ),
        },
        f"{thread}/runs/stream": {"post": _operation(tag, "Create And Stream Run", (THREAD,), body, SSE, codes)},
        f"{thread}/runs/wait": {"post": _operation(tag, "Create And Wait Run", (THREAD,), body, ANY, codes)},
        run: {
            "get": _operation(tag, "Get Run", (THREAD, RUN), success=row),
            "delete": _operation(
                tag, "Delete Run", (THREAD, RUN), success=GONE, status="204", codes=("404", "409")
            ),
        },
        f"{run}/join": {"get": _operation(tag, "Join Run", (THREAD, RUN, left))},
        f"{run}/stream": {"get": _operation(tag, "Join Run Stream", (THREAD, RUN, modes, left, LAST_ID), success=SSE)},
        f"{run}/cancel": {
            "post": _operation(
                tag, "Cancel Run", (THREAD, RUN, ("action", "query", "string"), ("wait", "query", "boolean")),
                status="202", success={"description": "The run stops"}, other=stopped,
            )
        },
        "/runs/cancel": {
            "post": _operation(
                tag, "Cancel Runs", (("action", "query", "string"),), stateless.RunsCancel,
                success={"description": "The runs stop"}, status="204",
            )
        },
    }  # fmt: skip


def _stateless_paths() -> Schema:
    tag, body, codes = "Stateless Runs", runs.RunCreate, ("400", "404", "409")
    row = rows.RunRow
    return {
        "/runs/stream": {"post": _operation(tag, "Create And Stream Stateless Run", (), body, SSE, codes)},
        "/runs/wait": {"post": _operation(tag, "Create And Wait Stateless Run", (), body, ANY, codes)},
        "/runs": {"post": _operation(tag, "Create Stateless Run", (), body, row, codes)},
        "/runs/batch": {"post": _operation(tag, "Create Run Batch", (), listed(body), listed(row), codes)},
    }


def _agent_paths() -> Schema:
    called, answered = named("JsonRpcMessage"), named("JsonRpcAnswer")
    taken: Schema = {"202": {"description": "A notification, or an answer to nothing"}}
    unread = {"400": _json("Not a JSON-RPC message", answered)}
    one: tuple[Parameter, ...] = (("assistant_id", "path", "string"),)
    both_kinds: Schema = {"application/json": {"schema": answered}, "text/event-stream": {}}
    streamed: Schema = {"description": "The answer, or a stream of answers", "content": both_kinds}
    return {
        AGENT_CARD: {
            "get": _operation("A2A", "Get Agent Card", (("assistant_id", "query", "string"),), success=OBJECT)
        },
        "/a2a/{assistant_id}": {
            "post": _operation("A2A", "Receive A2A Message", one, called, streamed, other={**taken, **unread})
        },
        "/mcp": {
            "post": _operation(
                "MCP", "Receive MCP Message", body=called, success=answered, codes=(), other={**taken, **unread}
            )
        },
    }


def _system_paths() -> Schema:
    return {
        "/metrics": {"get": _operation(OPEN_TAG, "Metrics", success=PROMETHEUS, codes=())},
        "/info": {"get": _operation(OPEN_TAG, "Server Info", success=OBJECT, codes=())},
        "/openapi.json": {"get": _operation(OPEN_TAG, "Description", success=OBJECT, codes=())},
        "/docs": {"get": _operation(OPEN_TAG, "Description To Read", success=HTML, codes=())},
        **{
            path: {"get": _operation(OPEN_TAG, summary, success=OBJECT, codes=())}
            for path, summary in (("/ok", "Ok"), ("/health", "Health"), ("/live", "Live"), ("/ready", "Ready"))
        },
    }


def _paths() -> Schema:
    thread = "/threads/{thread_id}"
    query = (THREAD, ("stream_mode", "query", "string"), LAST_ID)
    return {
        f"{thread}/stream/events": {"post": _event_stream()},
        f"{thread}/stream": {
            "get": _operation("Threads", "Stream Thread", query, success=SSE),
            "post": {
                **_event_stream(),
                "summary": "Stream Thread Events (Specification)",
                "operationId": "stream_thread_events_at_the_specified_path",
            },
        },
        f"{thread}/commands": {"post": _commands()},
        **_thread_paths(thread),
        **_state_paths(thread),
        **_run_paths(thread, f"{thread}/runs/{{run_id}}"),
        **_stateless_paths(),
        **_assistants(),
        **_cron_paths(),
        **_store_paths(),
        **_agent_paths(),
        **_system_paths(),
    }


TAGS: Final = (
    "Assistants", "Threads", "Thread Runs", "Stateless Runs", "Crons", "Store", "MCP", "A2A", "Event Streaming",
    OPEN_TAG,
)  # fmt: skip
DOCUMENT: Final[Schema] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Slipstream",
        "version": "0.1.0",
        "description": "An Agent Protocol server for LangGraph on an event log.",
    },
    "tags": [{"name": name} for name in TAGS],
    "paths": _paths(),
    "components": {"schemas": COMPONENTS},
}


def without(disabled: Collection[str]) -> Schema:
    """The description of a server that does not serve these groups of routes."""
    served = {path: found for path, found in DOCUMENT["paths"].items() if not groups_of(path) & set(disabled)}
    return {**DOCUMENT, "paths": served}


def _rows(document: Schema) -> str:
    out: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            codes = ", ".join(sorted(operation["responses"]))
            text = html.escape(operation.get("description", ""))
            out.append(
                f"<tr><td><b>{method.upper()}</b></td><td><code>{html.escape(path)}</code><br><small>{text}</small></td>"
                f"<td>{html.escape(operation['summary'])}</td><td>{codes}</td></tr>"
            )
    return "".join(out)


def page(document: Schema) -> str:
    """The description, readable."""
    return (
        "<!doctype html><meta charset=utf-8><title>Slipstream API</title><style>body{font:15px system-ui;margin:2em "
        "auto;max-width:70em}td{padding:.4em .8em;border-top:1px solid #ddd;vertical-align:top}small{color:#555}"
        "</style><h1>Slipstream API</h1><p>The description for programs is <a href=/openapi.json>openapi.json</a>.</p>"
        f"<table>{_rows(document)}</table>"
    )
