"""Protocol v2 over WebSocket: the same commands and events as over HTTP, in one order for all subscriptions."""

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from slipstream_schemas.limits import SOCKET_SUBSCRIPTIONS_MAX
from slipstream_schemas.seq import SEQ_MAX
from testkit.client import Client, new_thread
from testkit.sockets import Socket
from testkit.stack import Stack

MESSAGE = {"messages": [{"role": "user", "content": "Lisbon?"}]}


def by_seq(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {event["seq"]: event for event in events}


@pytest.mark.parametrize("path", ["stream/events", "stream"])
async def test_a_socket_carries_what_a_stream_carries(live: Stack, path: str) -> None:
    thread_id = new_thread()
    async with Client(live.url) as client, Socket(live.url, thread_id, path) as socket:
        await socket.subscribe()
        answer = await socket.command("run.start", assistant_id="agent", input=MESSAGE)
        assert answer["type"] == "success" and answer["result"]["run_id"]
        live_events = await socket.until_ended()
        replayed = [frame.body for frame in await client.run_events(thread_id)]
        assert live_events == replayed
        async with Socket(live.url, thread_id, path) as late:
            await late.subscribe(since=replayed[9]["seq"])
            assert await late.until_ended() == replayed[10:]


async def test_subscriptions_share_one_order_and_get_no_event_twice(live: Stack) -> None:
    thread_id = new_thread()
    async with Socket(live.url, thread_id) as socket:
        await socket.subscribe("lifecycle", "input")
        await socket.command("run.start", assistant_id="subgraphs", input=MESSAGE)
        watched = await socket.until_ended()
        count = len(socket.seen)
        await socket.subscribe("values", "messages", "lifecycle")
        await socket.until("caught_up", 2)
        replayed = [each for each in socket.seen[count:] if each["type"] == "event"]
        # The wide subscription has a replay of its own, whole and in order.
        assert [each["seq"] for each in replayed] == sorted(each["seq"] for each in replayed)
        assert by_seq(watched).items() <= by_seq(replayed).items()
        count = len(socket.seen)
        await socket.command("run.start", assistant_id="counter", input={"steps": 2, "delay_s": 0})
        second = [each for each in (await socket.until_ended(3))[-len(socket.seen) :] if each in socket.seen[count:]]
        seqs = [each["seq"] for each in second]
        assert seqs == sorted(set(seqs)), "live, an event that two subscriptions want is sent once"


async def test_a_subscription_that_ended_gets_nothing(live: Stack) -> None:
    async with Socket(live.url, new_thread()) as socket:
        custom, _ = await socket.subscribe("custom"), await socket.subscribe("lifecycle")
        assert (await socket.command("subscription.unsubscribe", subscription_id=custom))["result"] == {}
        await socket.command("run.start", assistant_id="counter", input={"steps": 2, "delay_s": 0})
        assert {each["method"] for each in await socket.until_ended()} == {"lifecycle"}
        answer = await socket.command("subscription.unsubscribe", subscription_id=custom)
        assert (answer["type"], answer["error"]) == ("error", "no_such_subscription")


async def test_subscriptions_are_restored_on_another_socket(live: Stack) -> None:
    thread_id = new_thread()
    async with Socket(live.url, thread_id) as socket:
        subscription = await socket.subscribe("values", "lifecycle", namespaces=[[]])
        answer = await socket.command("run.start", assistant_id="subgraphs", input=MESSAGE)
        run_id = answer["result"]["run_id"]
        events = await socket.until_ended()
    for last in (events[2]["event_id"], str(events[2]["seq"])):
        async with Socket(live.url, thread_id) as again:
            restored = await again.command(
                "subscription.reconnect", run_id=run_id, last_event_id=last, subscriptions=[subscription]
            )
            assert restored["result"]["restored"] is True
            namespaces = restored["result"]["current_namespaces"]
            assert namespaces[0] == {"namespace": [], "status": "completed"}
            assert [len(each["namespace"]) for each in namespaces] == [0, 1, 2]
            assert await again.until_ended() == events[3:]
    async with Socket(live.url, thread_id) as again:
        answer = await again.command("subscription.reconnect", run_id=run_id, last_event_id="gone")
        assert answer["result"] == {"restored": False}
        answer = await again.command("subscription.reconnect", run_id=run_id, subscriptions=["other.server"])
        assert answer["error"] == "no_such_subscription"
        answer = await again.command("subscription.reconnect", run_id="nobody")
        assert answer["error"] == "no_such_run"


async def test_frames_that_are_no_commands_are_answered_and_the_socket_lives(live: Stack) -> None:
    async with Socket(live.url, new_thread()) as socket:
        frames: tuple[Any, ...] = ("{", b"\xff", "[]", {"id": "1", "method": "run.start"}, {"id": -1, "method": "x"})
        for frame in frames:
            await socket.send(frame)
            answer = await socket.receive()
            assert (answer["type"], answer["error"], answer["id"]) == ("error", "invalid_argument", None)
        assert (await socket.command("nope"))["error"] == "unknown_command"
        for params in ({}, {"channels": ["nope"]}, {"channels": ["values"], "since": -1}):
            answer = await socket.command("subscription.subscribe", **params)
            assert answer["error"] == "invalid_argument", answer
        for _ in range(SOCKET_SUBSCRIPTIONS_MAX):
            await socket.subscribe("values")
        answer = await socket.command("subscription.subscribe", channels=["values"])
        assert str(SOCKET_SUBSCRIPTIONS_MAX) in answer["message"]


async def test_a_cursor_that_the_log_does_not_know_closes_the_socket(live: Stack) -> None:
    async with Socket(live.url, new_thread()) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.subscribe("values", since=SEQ_MAX)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4422
    async with Socket(live.url, "a.b") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.receive()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4422
