"""The Model Context Protocol: each assistant is a tool, and a call of it is a run on a thread of its own.

Theory of operation. Streamable HTTP without sessions: a request is answered by the instance that it comes to, from the
log and the rows, and nothing is remembered between two of them. A call's answer is white space until its run is over. A
client that goes away does not stop the run; the protocol says that going is no cancelling.
Source: the specification of 2025-06-18 (transports, tools).
"""

from collections import Counter
from typing import Any, Final

import msgspec

from slipstream_api import access, runs
from slipstream_api.context import Context
from slipstream_api.drawings import ask
from slipstream_api.jsonrpc import INVALID_PARAMS, Failed
from slipstream_api.render.outcome import Outcome
from slipstream_postgres import assistants
from slipstream_postgres.rows import AssistantRow
from slipstream_schemas.codec import dumps
from slipstream_schemas.drawings import SchemasQuestion
from slipstream_schemas.ids import is_tool_name, new_thread_id, system_assistant_id
from slipstream_schemas.limits import MCP_TOOLS_MAX, MCP_TOOLS_PAGE
from slipstream_telemetry.metrics import package_version

VERSIONS: Final = ("2025-06-18", "2025-11-25", "2025-03-26")
"""Those that a client may ask for; one that asks for another gets the first and decides."""
ANY_OBJECT: Final = {"type": "object"}


class InitializeParams(msgspec.Struct):
    """What a client says of itself."""

    protocol_version: str = msgspec.field(name="protocolVersion")


class ListParams(msgspec.Struct):
    """Which page of the tools."""

    cursor: str | None = None


class CallParams(msgspec.Struct):
    """Which tool, with what."""

    name: str
    arguments: dict[str, Any] = {}


def initialized(params: InitializeParams) -> dict[str, Any]:
    """The server's side of a handshake."""
    version = params.protocol_version if params.protocol_version in VERSIONS else VERSIONS[0]
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "slipstream", "version": package_version("slipstream")},
    }


async def _tools(context: Context) -> dict[str, AssistantRow]:
    """The assistants that the caller may see, oldest first, by the name of their tool. Raises: Forbidden, Unavailable.

    A graph's own assistant has the graph's name, another one its own if that is a name and nobody else's, else its id.
    """
    asked: dict[str, Any] = {"metadata": {}, "limit": MCP_TOOLS_MAX, "offset": 0}
    found = await access.permit(context, "assistants", "search", asked)
    metadata = msgspec.json.encode(asked.get("metadata") or {})
    query = assistants.AssistantQuery(metadata=metadata, limit=MCP_TOOLS_MAX, sort_order="asc", allowed=found)
    rows = (await assistants.search(context.database, context.scope.tenant, query))[:MCP_TOOLS_MAX]
    taken = Counter(row.name for row in rows) + Counter(list(await assistants.graph_versions(context.database)))
    return {_name(row, taken): row for row in rows}


def _name(row: AssistantRow, taken: Counter[str]) -> str:
    if row.assistant_id == system_assistant_id(row.graph_id) and is_tool_name(row.graph_id):
        return row.graph_id
    return row.name if is_tool_name(row.name) and taken[row.name] == 1 else row.assistant_id


async def tools(context: Context, params: ListParams) -> dict[str, Any]:
    """A page of the tools. Raises: Failed, Forbidden, Unavailable while no runner has one of the graphs."""
    cursor = params.cursor or "0"
    if not (cursor.isascii() and cursor.isdigit() and int(cursor) <= MCP_TOOLS_MAX):
        raise Failed(INVALID_PARAMS, "Unknown cursor")
    begin = int(cursor)
    known = list((await _tools(context)).items())
    page = [await _tool(context, name, row) for name, row in known[begin : begin + MCP_TOOLS_PAGE]]
    more = {"nextCursor": str(begin + MCP_TOOLS_PAGE)} if len(known) > begin + MCP_TOOLS_PAGE else {}
    return {"tools": page, **more}


async def _tool(context: Context, name: str, row: AssistantRow) -> dict[str, Any]:
    question = SchemasQuestion(row.graph_id, msgspec.json.decode(row.config))
    schema = msgspec.json.decode(await ask(context, question)).get("input_schema")
    takes_object = isinstance(schema, dict) and schema.get("type") == "object"  # pyright: ignore[reportUnknownMemberType]
    said = {"description": row.description} if row.description else {}
    return {"name": name, "title": row.name, **said, "inputSchema": schema if takes_object else ANY_OBJECT}


async def call(context: Context, params: CallParams) -> runs.Accepted:
    """Start the run of a tool. Raises: Rejected, Forbidden, Unavailable."""
    known = (await _tools(context)).get(params.name)
    assistant_id = params.name if known is None else known.assistant_id
    body = runs.RunCreate(assistant_id, input=params.arguments)
    created = await runs.resolve(context, new_thread_id(), body, creates_thread=True)
    return await runs.accept_alone(context, body, created)


def answered(outcome: Outcome) -> dict[str, Any]:
    """What a tool's run came to: the last values, or the error of the graph."""
    if outcome.error is not None:
        text = f"{outcome.error['error']}: {outcome.error['message']}"
        return {"content": [{"type": "text", "text": text}], "isError": True}
    values = outcome.result()
    structured = {"structuredContent": values} if isinstance(values, dict) else {}
    return {"content": [{"type": "text", "text": dumps(values).decode()}], **structured, "isError": False}
