"""Acknowledged publishing against a real server that refuses, stalls, dies and comes back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from slipstream_nats.connection import Connection, connect
from slipstream_nats.provision import provision
from slipstream_nats.publisher import Ack, Publisher, WrongSequence, open_publisher
from slipstream_nats.stored import at_seq
from slipstream_schemas.errors import TooLarge, Unavailable
from slipstream_schemas.limits import MESSAGE_BYTES_MAX
from slipstream_schemas.subjects import Scope, thread_log, threads_stream
from testkit.servers import NatsServer
from testkit.wait import until


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    return await open_publisher(connection)


@pytest.fixture
async def own(own_nats: NatsServer, region: str) -> AsyncIterator[Connection]:
    opened = await connect(own_nats.url, "test")
    await provision(opened, region)
    yield opened
    await opened.close()


async def test_acknowledgements_carry_the_seq(publisher: Publisher, scope: Scope) -> None:
    subject = thread_log(scope, "t")
    acks = await asyncio.gather(*(publisher.publish(subject, b"x") for _ in range(500)))
    assert [ack.stream_seq for ack in acks] == list(range(1, 501))


async def test_a_repeat_is_told_apart(publisher: Publisher, scope: Scope) -> None:
    subject, headers = thread_log(scope, "t"), {"Nats-Msg-Id": "one"}
    assert await publisher.publish(subject, b"x", headers) == Ack(1)
    assert await publisher.publish(subject, b"x", headers) == Ack(1, duplicate=True)


async def test_a_wrong_sequence_names_the_right_one(publisher: Publisher, scope: Scope) -> None:
    subject = thread_log(scope, "t")
    await publisher.publish(subject, b"x")
    with pytest.raises(WrongSequence) as caught:
        await publisher.publish(subject, b"y", {"Nats-Expected-Last-Subject-Sequence": "7"})
    assert caught.value.actual == 1


async def test_a_subject_without_stream_is_unavailable(publisher: Publisher) -> None:
    with pytest.raises(Unavailable, match="no stream"):
        await publisher.publish("nowhere.at.all", b"x")


async def test_a_record_at_the_limit_fits_and_one_over_it_harms_nobody(publisher: Publisher, scope: Scope) -> None:
    subject, headers = thread_log(scope, "t"), {"Nats-Msg-Id": "big"}
    framing = len("NATS/1.0\r\nNats-Msg-Id: big\r\n\r\n")
    with pytest.raises(TooLarge):
        await publisher.publish(subject, bytes(MESSAGE_BYTES_MAX - framing + 1), headers)
    assert (await publisher.publish(subject, bytes(MESSAGE_BYTES_MAX - framing), headers)).stream_seq == 1


async def test_a_silent_server_is_unavailable_by_the_deadline(
    own: Connection, own_nats: NatsServer, scope: Scope
) -> None:
    publisher = await open_publisher(own)
    os.kill(own_nats.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="no acknowledgement"):
        await publisher.publish(thread_log(scope, "t"), b"x", deadline_s=0.3)
    os.kill(own_nats.pid, signal.SIGCONT)


async def test_what_is_in_flight_fails_with_the_connection(own: Connection, own_nats: NatsServer, scope: Scope) -> None:
    publisher = await open_publisher(own)
    os.kill(own_nats.pid, signal.SIGSTOP)
    publishing = asyncio.create_task(publisher.publish(thread_log(scope, "t"), b"x", deadline_s=3600))
    await asyncio.sleep(0)
    own_nats.kill()
    with pytest.raises(Unavailable, match="connection"):
        async with asyncio.timeout(20):
            await publishing


async def test_a_publish_during_an_outage_waits_for_the_server(
    own: Connection, own_nats: NatsServer, scope: Scope
) -> None:
    publisher = await open_publisher(own)
    own_nats.kill()
    await until(lambda: not own.is_connected)
    publishing = asyncio.create_task(publisher.publish(thread_log(scope, "t"), b"late", deadline_s=20))
    own_nats.start()
    ack = await publishing
    stored = await at_seq(own, threads_stream(scope.region), ack.stream_seq)
    assert stored is not None and stored.body == b"late"


async def test_a_publish_that_failed_during_an_outage_is_not_sent_later(
    own: Connection, own_nats: NatsServer, scope: Scope
) -> None:
    publisher = await open_publisher(own)
    own_nats.kill()
    await until(lambda: not own.is_connected)
    with pytest.raises(Unavailable):
        await publisher.publish(thread_log(scope, "t"), b"given up", deadline_s=0.2)
    own_nats.start()
    assert (await publisher.publish(thread_log(scope, "t"), b"next", deadline_s=20)).stream_seq == 1


async def test_a_closed_connection_is_unavailable_at_once(own: Connection, scope: Scope) -> None:
    publisher = await open_publisher(own)
    await own.close()
    with pytest.raises(Unavailable, match="closed"):
        await publisher.publish(thread_log(scope, "t"), b"x", deadline_s=3600)
