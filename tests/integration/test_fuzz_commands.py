"""Anything at all, sent to the endpoints of protocol v2: no 500, no stuck stream, no record for a refused command."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from slipstream_nats.connection import connect
from slipstream_nats.stored import last_of_subject
from slipstream_schemas import subjects
from slipstream_schemas.limits import BODY_BYTES_MAX, JSON_DEPTH_MAX
from slipstream_schemas.subjects import Scope
from testkit.client import Client, new_thread
from testkit.stack import Stack

Heads = Callable[[str], Awaitable[tuple[int, int]]]
BUSY: Final = 503
ASKED: Final = new_thread()
"""A thread that waits for an answer."""
FUZZ: Final = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TEXTS: Final = st.one_of(
    st.text(st.characters(codec=None), max_size=20),
    st.sampled_from(["", "\x00", "\ud800", "\udfff\ud800", "custom:", "custom:x", "values", "input", "[]", "é" * 300]),
)
JSON: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just(2**70), st.just(-1)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def nearly(draw: st.DrawFn, valid: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """What is valid, half of the time with one field of anything, or without it."""
    made, change = dict(draw(valid)), draw(st.sampled_from(["nothing", "nothing", "remove", "replace"]))
    if made and change != "nothing":
        name = draw(st.sampled_from(sorted(made)))
        del made[name]
        if change == "replace":
            made[name] = draw(JSON)
    return made


CONFIGS: Final = st.fixed_dictionaries(
    {},
    optional={
        "configurable": st.dictionaries(st.sampled_from(["thread_id", "run_id", "x"]), JSON, max_size=2),
        "recursion_limit": st.integers(-5, 50),
        "tags": st.lists(TEXTS, max_size=3),
    },
)
RUN_START: Final = st.fixed_dictionaries(
    {"assistant_id": st.sampled_from(["approval", "approval", "approval", "nobody"])},
    optional={
        "input": JSON,
        "config": nearly(CONFIGS),
        "metadata": st.dictionaries(TEXTS, JSON, max_size=3),
        "multitaskStrategy": st.sampled_from(["reject", "enqueue", "interrupt", "rollback"]),
        "interrupt_before": st.sampled_from(["*", ["ask"], ["nowhere"]]),
        "interrupt_after": st.sampled_from(["*", [], None]),
    },
)
ANSWERS: Final = st.fixed_dictionaries(
    {"interrupt_id": st.one_of(st.just("0" * 32), TEXTS), "response": JSON},
    optional={"namespace": st.lists(TEXTS, max_size=2)},
)
BATCHES: Final = st.fixed_dictionaries(
    {"responses": st.lists(nearly(ANSWERS), max_size=3)}, optional={"update": JSON, "goto": JSON, "config": JSON}
)


def commands(method: str, params: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Envelopes of a method."""
    envelope = {"id": st.integers(0, 2**60), "method": st.just(method), "params": nearly(params)}
    return nearly(st.fixed_dictionaries(envelope))


STARTS: Final = commands("run.start", RUN_START)
RESPONDS: Final = commands("input.respond", st.one_of(ANSWERS, BATCHES))
REQUESTS: Final = nearly(
    st.fixed_dictionaries(
        {"channels": st.lists(st.sampled_from(["values", "lifecycle", "input", "custom:a"]), min_size=1, max_size=3)},
        optional={
            "namespaces": st.lists(st.lists(TEXTS, max_size=3), max_size=3),
            "depth": st.integers(0, 5),
            "since": st.sampled_from([0, 0, 255, -1, 2**40, 2**54]),
        },
    )
)


def nested(depth: int) -> bytes:
    """A `run.start` whose input is that deep."""
    return b'{"id":1,"method":"run.start","params":{"assistant_id":"approval","input":%b%b}}' % (
        b"[" * depth, b"]" * depth)  # fmt: skip


def large(text: str, characters: int) -> bytes:
    """A `run.start` whose input holds a text that long, escaped as JSON escapes it."""
    unit = json.dumps(text)[1:-1].encode()
    return b'{"id":1,"method":"run.start","params":{"assistant_id":"approval","input":{"a":"%b"}}}' % (
        unit * (characters // len(unit)))  # fmt: skip


@st.composite
def as_bodies(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> bytes:
    """Mostly JSON; now and then JSON that is cut off, or bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=40))
    body = json.dumps(draw(values)).encode()
    return body[:-1] if kind == 1 else body


@pytest.fixture
async def client(live: Stack) -> AsyncIterator[Client]:
    """The running stack's."""
    async with Client(live.url) as opened:
        yield opened


@pytest.fixture
async def heads(live: Stack) -> AsyncIterator[Heads]:
    """The last stream_seqs of a thread's two subjects, 0 for an empty one."""
    scope = Scope(live.region)
    connection = await connect(live.nats_url, "fuzz")

    async def read(thread_id: str) -> tuple[int, int]:
        logged = await last_of_subject(
            connection, subjects.threads_stream(live.region), subjects.thread_log(scope, thread_id)
        )
        decided = await last_of_subject(
            connection, subjects.control_stream(live.region), subjects.control(scope, thread_id)
        )
        return (logged.stream_seq if logged else 0, decided.stream_seq if decided else 0)

    yield read
    await connection.close()


def is_accepted(answer: httpx.Response) -> bool:
    """Whether a command took effect. An answer of any other form than the protocol's fails the test."""
    assert answer.status_code < 500 or answer.status_code == BUSY, answer.text
    if answer.status_code != 200:
        return False
    envelope = answer.json()
    assert envelope["type"] in ("success", "error")
    if envelope["type"] == "error":
        assert envelope["error"] and isinstance(envelope["message"], str)
    event(envelope.get("error", "accepted"))
    return bool(envelope["type"] == "success")


@FUZZ
@given(as_bodies(st.one_of(STARTS, RESPONDS, JSON)))
@example(nested(JSON_DEPTH_MAX - 10))
@example(nested(JSON_DEPTH_MAX + 1))
@example(nested(100_000))
@example(large("x", BODY_BYTES_MAX - 200))
@example(large("\x01", BODY_BYTES_MAX - 200))
@example(large("\ud800", BODY_BYTES_MAX - 200))
@example(large("x", BODY_BYTES_MAX + 1))
async def test_a_command_is_accepted_whole_or_leaves_nothing(client: Client, heads: Heads, body: bytes) -> None:
    thread_id = new_thread()
    answer = await client.http.post(f"/threads/{thread_id}/commands", content=body)
    if is_accepted(answer):
        frames = await client.run_events(thread_id, channels=["lifecycle"])
        assert frames[-1].ends_root, "an accepted run ends, and its stream shows it"
    else:
        assert await heads(thread_id) == (0, 0)


@FUZZ
@given(as_bodies(RESPONDS))
async def test_a_refused_answer_leaves_the_question_open(client: Client, heads: Heads, body: bytes) -> None:
    before = await heads(ASKED)
    if before == (0, 0):
        await client.start(ASKED, "approval", {"amount": 1})
        assert (await client.run_events(ASKED))[-1].ends_root
        before = await heads(ASKED)
    answer = await client.http.post(f"/threads/{ASKED}/commands", content=body)
    assert not is_accepted(answer), "no generated id names the question"
    assert await heads(ASKED) == before


@FUZZ
@given(as_bodies(st.one_of(REQUESTS, JSON)))
@example(b'{"channels":["values"],"since":' + b"9" * 5000 + b"}")
@example(json.dumps({"channels": ["values"] * 100_000}).encode())
@example(json.dumps({"channels": ["values"], "namespaces": [["a"] * 1000]}).encode())
async def test_a_stream_opens_or_says_why_not(client: Client, body: bytes) -> None:
    path = f"/threads/{new_thread()}/stream/events"
    async with client.http.stream("POST", path, content=body) as answer:
        event(str(answer.status_code))
        if answer.status_code == 200:
            first = await anext(answer.aiter_bytes())
            assert first.startswith(b": ")
        else:
            text = await answer.aread()
            assert answer.status_code < 500, text
            assert json.loads(text)["detail"]
