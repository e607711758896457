"""Requests between processes: answers, silence, and errors that keep their class."""

import asyncio
import logging

import pytest

from slipstream_nats.connection import Connection
from slipstream_nats.rpc import Answer, call, serve
from slipstream_schemas import errors
from slipstream_schemas.limits import MESSAGE_BYTES_MAX


@pytest.fixture
def subject(region: str) -> str:
    return f"rpc.{region}.question"


async def test_an_answer_comes_back(connection: Connection, subject: str) -> None:
    async def answer(body: bytes) -> bytes:
        return b'{"asked":%s}' % body

    await serve(connection, subject, answer)
    assert await call(connection, subject, b'{"n":1}') == b'{"asked":{"n":1}}'


async def test_nobody_there_is_told_apart_from_no_answer(connection: Connection, subject: str) -> None:
    with pytest.raises(errors.NoResponder):
        await call(connection, subject, b"{}")
    silent = asyncio.Event()

    async def answer(body: bytes) -> bytes:
        await silent.wait()
        return body

    await serve(connection, subject, answer)
    with pytest.raises(errors.Unavailable) as caught:
        await call(connection, subject, b"{}", deadline_s=0.2)
    assert not isinstance(caught.value, errors.NoResponder)
    silent.set()


async def test_a_slow_answer_does_not_hold_up_others(connection: Connection, subject: str) -> None:
    release = asyncio.Event()

    async def answer(body: bytes) -> bytes:
        if body == b"1":
            await release.wait()
        return body

    await serve(connection, subject, answer)
    slow = asyncio.create_task(call(connection, subject, b"1"))
    assert await call(connection, subject, b"2") == b"2"
    release.set()
    assert await slow == b"1"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (errors.Rejected("no"), errors.Rejected),
        (errors.NotFound("no"), errors.NotFound),
        (errors.TooLarge("no"), errors.TooLarge),
        (errors.Conflict("no"), errors.Conflict),
        (errors.Fenced("no", 7), errors.Conflict),
        (errors.Unavailable("no"), errors.Unavailable),
        (errors.NoResponder("no"), errors.Unreachable),
        (errors.Corrupt("no"), errors.Corrupt),
    ],
)
async def test_errors_keep_their_class(
    connection: Connection, subject: str, raised: errors.SlipstreamError, expected: type[errors.SlipstreamError]
) -> None:
    async def answer(body: bytes) -> bytes:
        raise raised

    await serve(connection, subject, answer)
    with pytest.raises(expected) as caught:
        await call(connection, subject, b"{}")
    assert type(caught.value) is expected and caught.value.message == "no"


async def test_an_invalid_argument_keeps_its_place(connection: Connection, subject: str) -> None:
    async def answer(body: bytes) -> bytes:
        raise errors.InvalidArgument("must be positive", ("body", "items", 3))

    await serve(connection, subject, answer)
    with pytest.raises(errors.InvalidArgument) as caught:
        await call(connection, subject, b"{}")
    assert caught.value.loc == ("body", "items", 3)


async def test_an_unexpected_error_is_logged_and_not_told(
    connection: Connection, subject: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(body: bytes) -> bytes:
        raise RuntimeError("the password is hunter2")

    await serve(connection, subject, answer)
    with caplog.at_level(logging.ERROR), pytest.raises(errors.Unavailable) as caught:
        await call(connection, subject, b"{}")
    assert "hunter2" not in caught.value.message
    assert "hunter2" in caplog.text


async def test_an_answer_over_the_limit_is_an_error_not_silence(connection: Connection, subject: str) -> None:
    async def answer(body: bytes) -> bytes:
        return b'"' + b"x" * MESSAGE_BYTES_MAX + b'"'

    await serve(connection, subject, answer)
    with pytest.raises(errors.TooLarge):
        await call(connection, subject, b"{}")


async def test_a_queue_answers_each_request_once(connection: Connection, subject: str) -> None:
    answered: list[str] = []

    def named(name: str) -> Answer:
        async def answer(body: bytes) -> bytes:
            answered.append(name)
            return body

        return answer

    for name in ("a", "b", "c"):
        await serve(connection, subject, named(name), queue="members")
    for count in range(30):
        assert await call(connection, subject, b"%d" % count) == b"%d" % count
    assert len(answered) == 30
