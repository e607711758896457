"""Assistants as tools of the Model Context Protocol, with the stock client."""

from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from mcp import Client, MCPError

from slipstream_schemas.limits import BODY_BYTES_MAX
from testkit.stack import Stack

COUNT = {"steps": 2, "delay_s": 0}
INITIALIZE = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
}  # fmt: skip


def text_of(result: Any) -> str:
    """The one text of a tool's result."""
    (block,) = result.content
    return str(block.text)


async def names_of(client: Client) -> dict[str, Any]:
    """All tools by their names, over all pages."""
    found: dict[str, Any] = {}
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        found |= {tool.name: tool for tool in page.tools}
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_every_graph_is_a_tool(live: Stack) -> None:
    async with Client(f"{live.url}/mcp") as client:
        tools = await names_of(client)
        assert {"chat", "agent", "counter", "boom"} <= tools.keys()
        assert tools["counter"].input_schema["properties"].keys() >= {"count", "steps"}
        assert "messages" in tools["chat"].input_schema["properties"]


async def test_a_call_is_a_run(live: Stack) -> None:
    async with Client(f"{live.url}/mcp") as client:
        result = await client.call_tool("counter", COUNT)
        assert result.structured_content == {"count": 2, **COUNT} and not result.is_error
        said = await client.call_tool("chat", {"messages": [{"role": "user", "content": "hello"}]})
        assert said.structured_content is not None and len(said.structured_content["messages"]) == 2
        asked = await client.call_tool("approval", {"amount": 7})
        assert "__interrupt__" in text_of(asked)


async def test_an_error_of_the_graph_is_the_tools(live: Stack) -> None:
    async with Client(f"{live.url}/mcp") as client:
        result = await client.call_tool("boom", {"messages": []})
    assert result.is_error and "boom: the stove is on fire" in text_of(result)


async def test_an_unknown_tool_is_refused(live: Stack) -> None:
    async with Client(f"{live.url}/mcp") as client:
        for name in ("nobody", "", "a" * 300, "\x00"):
            with pytest.raises(MCPError):
                await client.call_tool(name, {})


async def test_assistants_are_named_so_that_each_is_meant(live: Stack) -> None:
    sdk = get_client(url=live.url)
    one = (await sdk.assistants.create("counter", name="tally", description="Counts"))["assistant_id"]
    more = [
        (await sdk.assistants.create("counter", name=name))["assistant_id"] for name in ("twin", "twin", "two words")
    ]
    shadow = (await sdk.assistants.create("counter", name="chat"))["assistant_id"]
    try:
        async with Client(f"{live.url}/mcp") as client:
            tools = await names_of(client)
            assert tools["tally"].description == "Counts" and one not in tools
            assert {*more, shadow} <= tools.keys() and "twin" not in tools
            assert tools[more[2]].title == "two words" and "messages" in tools["chat"].input_schema["properties"]
            for name in ("tally", *more, shadow):
                assert (await client.call_tool(name, COUNT)).structured_content == {"count": 2, **COUNT}
    finally:
        for assistant_id in (one, *more, shadow):
            await sdk.assistants.delete(assistant_id)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"[]", 400, -32600),
        (b'{"id":1,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":[],"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"prompts/list"}', 200, -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}', 200, -32602),
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', 202, None),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', 202, None),
        (b" " * (BODY_BYTES_MAX + 1), 413, None),
    ],
)
def test_a_message_that_is_none_is_refused(live: Stack, body: bytes, status: int, code: int | None) -> None:
    answer = httpx.post(f"{live.url}/mcp", content=body)
    assert answer.status_code == status
    if code is not None:
        assert answer.json()["error"]["code"] == code


def test_a_client_gets_the_version_that_it_asks_for(live: Stack) -> None:
    def agreed(version: str) -> str:
        body = {**INITIALIZE, "params": {"protocolVersion": version}}
        return str(httpx.post(f"{live.url}/mcp", json=body).json()["result"]["protocolVersion"])

    assert agreed("2025-03-26") == "2025-03-26" and agreed("1999-01-01") == "2025-06-18"
    assert httpx.get(f"{live.url}/mcp").status_code == 405
