"""A continuous pull against a real broker: order, backpressure, and every way to lose a consumer."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from slipstream_nats.connection import Connection
from slipstream_nats.inbox import Inbox, Message, parse_reply
from slipstream_nats.provision import provision
from slipstream_nats.pull import ContinuousPull, open_pull
from slipstream_schemas.errors import Corrupt
from slipstream_schemas.subjects import family, thread_log
from testkit.tail_rig import DEADLINE_S, Broker, Rig, run, until


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = Broker(tmp_path_factory.mktemp("nats"))
    broker.start()
    yield broker.url
    broker.stop()


async def read(pull: ContinuousPull, count: int) -> list[Message]:
    """The next `count` messages."""
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(messages) < count:
            messages.extend(await anext(pull))
    return messages


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.S.c.1.42.7.1795228896848258312.3",
        "$JS.ACK.hub.ACC.S.c.1.42.7.1795228896848258312.3",
        "$JS.ACK.hub.ACC.S.c.1.42.7.1795228896848258312.3.random",
    ],
)
def test_reply_subjects_with_and_without_a_domain(reply: str) -> None:
    assert parse_reply(reply) == ("S", "c", 42, 7, 1795228896848, 3)


def test_all_subjects_of_a_family_in_order_from_a_position(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            seqs = [await rig.write(f"t{count % 3}") for count in range(60)]
            subject = family("threads", rig.scope.region)
            async with open_pull(await rig.connect("p"), rig.stream, subject, seqs[9] + 1, batch_records=8) as pull:
                messages = await read(pull, 50)
                assert [message.stream_seq for message in messages] == seqs[10:]
                assert messages[0].subject == thread_log(rig.scope, "t1")
                assert messages[0].body == rig.written["t1"][3][1]
                assert (messages[0].headers or {})["Nats-Msg-Id"] == "t1:1:3"
                assert messages[0].timestamp_ms > 1_600_000_000_000

    run(scenario())


def test_new_means_from_now_on_through_every_loss(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            await rig.write("a")
            subject = thread_log(rig.scope, "a")
            async with open_pull(await rig.connect("p"), rig.stream, subject, "new") as pull:
                await until(lambda: pull.consumers_made == 1, "the consumer is made")
                assert await rig.delete_consumers() == 1
                seqs = [await rig.write("a") for _ in range(5)]
                assert [message.stream_seq for message in await read(pull, 5)] == seqs

    run(scenario())


def test_an_unread_pull_stops_asking(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            for _ in range(80):
                await rig.write("a", line_bytes=10_000)
            async with Inbox(await rig.connect("p")) as inbox:
                pull = ContinuousPull(inbox, rig.stream, thread_log(rig.scope, "a"), 1, batch_bytes=100_000)
                pull.open()
                first = await read(pull, 1)
                held = -1
                while held != pull.position:
                    held = pull.position
                    await rig.connection.api(f"STREAM.INFO.{rig.stream}", {})
                assert held < 50, "what nobody takes stays in the broker"
                messages = first + await read(pull, 80 - len(first))
                assert [message.body for message in messages] == [line for _, line in rig.written["a"]]
                await pull.close()

    run(scenario())


def test_a_message_larger_than_a_pull_passes(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            await rig.write("a", line_bytes=300_000)
            async with Inbox(await rig.connect("p")) as inbox:
                pull = ContinuousPull(inbox, rig.stream, thread_log(rig.scope, "a"), 1, batch_bytes=50_000)
                pull.open()
                assert len((await read(pull, 1))[0].body) == 300_000
                await pull.close()

    run(scenario())


def test_two_missing_heartbeats_replace_the_consumer(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig, Inbox(await rig.connect("p")) as inbox:
            pull = ContinuousPull(inbox, rig.stream, thread_log(rig.scope, "a"), "new")
            pull.open()
            await until(lambda: pull.consumers_made == 1, "the consumer is made")
            await until(lambda: bool(pull.parked), "a pull is parked")
            now_s = asyncio.get_running_loop().time()
            assert not pull.check(now_s + 9)
            assert pull.check(now_s + 60)
            await until(lambda: pull.consumers_made == 2, "the consumer is replaced")
            seq = await rig.write("a")
            assert [message.stream_seq for message in await read(pull, 1)] == [seq]
            await pull.close()

    run(scenario())


def test_a_log_that_ends_before_what_was_read_is_corrupt(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig, Inbox(await rig.connect("p")) as inbox:
            for _ in range(3):
                await rig.write("a")
            pull = ContinuousPull(inbox, rig.stream, thread_log(rig.scope, "a"), 1, lost_log_grace_s=0.2)
            pull.open()
            await read(pull, 3)
            await rig.connection.api(f"STREAM.DELETE.{rig.stream}", {})
            await provision(rig.connection, rig.scope.region)
            pull.reconnected()
            with pytest.raises(Corrupt):
                await read(pull, 1)
            await pull.close()

    run(scenario())


def test_a_probe_leaves_a_living_consumer_alone(url: str) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig, Inbox(await rig.connect("p")) as inbox:
            pull = ContinuousPull(inbox, rig.stream, thread_log(rig.scope, "a"), "new", batch_records=4)
            pull.open()
            await until(lambda: bool(pull.parked), "a pull is parked")
            await pull.probe()
            assert pull.parked == 2
            seqs = [await rig.write("a") for _ in range(20)]
            assert [message.stream_seq for message in await read(pull, 20)] == seqs
            assert pull.consumers_made == 1
            await pull.close()

    run(scenario())


class LossyConnection:
    """A connection that drops some of what is delivered, as a client with a full queue does."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._connection = connection
        self._chance = random.Random(seed)
        self.dropped = 0
        self.new_inbox = connection.new_inbox
        self.publish = connection.publish
        self.on_reconnect = connection.on_reconnect

    @property
    def is_connected(self) -> bool:
        return self._connection.is_connected

    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> Subscription:
        async def lossy(msg: Msg) -> None:
            if msg.reply and self._chance.random() < 0.05:
                self.dropped += 1
            else:
                await cb(msg)

        return await self._connection.subscribe(subject, cb=lossy)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dropped_deliveries_are_noticed_and_read_again(url: str, seed: int) -> None:
    async def scenario() -> None:
        async with Rig(url) as rig:
            lossy = LossyConnection(await rig.connect("p"), seed)
            async with Inbox(lossy) as inbox:
                pull = ContinuousPull(inbox, rig.stream, thread_log(rig.scope, "a"), "new", batch_records=16)
                pull.open()
                await until(lambda: pull.consumers_made == 1, "the consumer is made")
                seqs = [await rig.write("a") for _ in range(300)]
                assert [message.stream_seq for message in await read(pull, 300)] == seqs
                assert lossy.dropped
                await pull.close()

    run(scenario())
