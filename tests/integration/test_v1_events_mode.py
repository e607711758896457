"""Stream mode `events`: LangChain's own event stream, recorded for a run that asks for it."""

from typing import Any

from langgraph_sdk import get_client

from testkit.stack import Stack

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


async def parts_of(live: Stack, modes: list[Any]) -> list[tuple[str, Any]]:
    """What a run of the chat graph streams on a thread of its own."""
    sdk = get_client(url=live.url)
    thread = await sdk.threads.create()
    stream = sdk.runs.stream(thread["thread_id"], "chat", input=HELLO, stream_mode=modes)
    return [(part.event, part.data) async for part in stream]


async def test_events_tell_of_each_step_and_token(live: Stack) -> None:
    parts = await parts_of(live, ["events"])
    assert {name for name, _ in parts} == {"metadata", "events"}
    events = [data for name, data in parts if name == "events"]
    assert (events[0]["event"], events[-1]["event"]) == ("on_chain_start", "on_chain_end")
    tokens = [e["data"]["chunk"]["content"] for e in events if e["event"] == "on_chat_model_stream"]
    assert len(tokens) > 5 and "".join(tokens).startswith("You said: hello.")
    assert all({"run_id", "name", "parent_ids"} <= set(event) for event in events)


async def test_the_other_modes_are_the_same_beside_events(live: Stack) -> None:
    modes = ["values", "updates", "messages-tuple", "custom"]
    alone = await parts_of(live, modes)
    beside = [part for part in await parts_of(live, [*modes, "events"]) if part[0] != "events"]
    assert [name for name, _ in beside] == [name for name, _ in alone]
    said = [[d[0]["content"] for n, d in parts if n == "messages"] for parts in (alone, beside)]
    assert said[0] == said[1] and said[0]
