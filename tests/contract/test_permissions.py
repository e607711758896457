"""Each NATS user does what its service needs and is refused the rest, on a real server with the shipped permissions.

That a service may do all it needs is shown by every test that starts one: they have these users (`testkit.permitted`).
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from slipstream_nats import leases
from slipstream_nats.connection import Access, Connection, connect
from slipstream_nats.embedded import start_nats
from slipstream_nats.permissions import Feed, feed_of, render
from slipstream_nats.provision import provision, provision_feed
from slipstream_nats.publisher import open_publisher
from slipstream_nats.stored import last_of_subject
from slipstream_schemas.errors import Rejected, Unavailable
from slipstream_schemas.subjects import Scope, control, lease, thread_log, threads_stream, work
from testkit import permitted
from testkit.wait import until

HOME: Final = Scope("home")
OTHER: Final = Scope("home", "other")
FEED: Final = Feed("control", "default")
NEXT: Final = "$JS.API.CONSUMER.MSG.NEXT.CONTROL_home.audit_control_default"

STREAMS_GONE = ["$JS.API.STREAM.DELETE.THREADS_home", "$JS.API.STREAM.DELETE.CONTROL_home",
                "$JS.API.STREAM.UPDATE.CONTROL_home", "$JS.API.STREAM.MSG.DELETE.THREADS_home",
                "$JS.API.STREAM.SNAPSHOT.THREADS_home", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES",
                "$JS.API.CONSUMER.LIST.CONTROL_home", "$JS.API.CONSUMER.NAMES.CONTROL_home", "$SYS.REQ.SERVER.PING",
                "$JS.API.CONSUMER.CREATE.CONTROL_home", "$JS.API.CONSUMER.CREATE.CONTROL_home.x.work.home.>",
                "$JS.API.CONSUMER.DELETE.CONTROL_home.work",
                "$JS.API.CONSUMER.DELETE.CONTROL_home.audit_control_default"]  # fmt: skip
ELSEWHERE = ["control.away.default.t", "threads.away.default.t", "rpc.away.store", "$JS.API.STREAM.INFO.THREADS_away",
             "$JS.API.STREAM.MSG.GET.CONTROL_away", "$JS.API.DIRECT.GET.THREADS_away"]  # fmt: skip
TAKES_WORK = "$JS.API.CONSUMER.MSG.NEXT.CONTROL_home.work"
MAY_NOT_PUBLISH: Final[dict[str, list[str]]] = {
    "api": [
        *STREAMS_GONE, *ELSEWHERE, TAKES_WORK, NEXT, "threads.home.default.t", "leases.home.default.t", "position.home",
        "$JS.ACK.CONTROL_home.work.1.1.1.1.0", "rpc.home.runner.x",
        "_INBOX_runner.x", "_INBOX_projector.x", "$JS.API.STREAM.CREATE.X",
        "$JS.API.CONSUMER.CREATE.THREADS_home.x.leases.home.>", "$JS.API.STREAM.PURGE.THREADS_home",
    ],
    "runner": [
        *STREAMS_GONE, *ELSEWHERE, NEXT, "position.home", "crons.home.default.c.at", "crons.home.default.c.due",
        "_INBOX_api.x", "$JS.API.STREAM.CREATE.X", "$JS.API.CONSUMER.CREATE.THREADS_home.x.threads.home.>",
        "$JS.API.CONSUMER.MSG.NEXT.THREADS_home.x", "$JS.API.DIRECT.GET.THREADS_home",
        "$JS.ACK.CONTROL_home.audit_control_default.1.1.1.1.0",
    ],
    "projector": [
        *STREAMS_GONE, *ELSEWHERE, TAKES_WORK, NEXT, "control.home.default.t", "work.home.default.t",
        "threads.home.default.t", "leases.home.default.t", "crons.home.default.c.at", "rpc.home.upkeep", "_INBOX_api.x",
        "$JS.API.STREAM.PURGE.CONTROL_home", "$JS.API.STREAM.PURGE.THREADS_home",
    ],
    "provision": [
        *STREAMS_GONE[:6], *ELSEWHERE, TAKES_WORK, "control.home.default.t", "threads.home.default.t",
        "leases.home.default.t", "rpc.home.upkeep", "$JS.API.STREAM.PURGE.CONTROL_home",
    ],
    "audit_control_default": [
        *STREAMS_GONE, *ELSEWHERE, TAKES_WORK, "control.home.default.t", "threads.home.default.t", "rpc.home.store",
        "leases.home.default.t", "$JS.API.STREAM.MSG.GET.CONTROL_home", "$JS.ACK.CONTROL_home.work.1.1.1.1.0",
        "$JS.API.CONSUMER.CREATE.CONTROL_home.audit_control_default.control.home.default.>",
        "$JS.API.CONSUMER.INFO.CONTROL_home.work", "_INBOX_api.x",
    ],
}  # fmt: skip
MAY_NOT_SUBSCRIBE: Final[dict[str, list[str]]] = {
    "api": [">", "_INBOX.>", "_INBOX_runner.>", "control.home.>", "threads.home.>", "rpc.home.>", "$JS.>"],
    "runner": [">", "_INBOX_api.>", "threads.home.>", "control.home.>", "position.home", "$JS.ACK.>"],
    "projector": [">", "_INBOX_api.>", "rpc.home.>", "control.home.>"],
    "provision": [">", "_INBOX_api.>", "control.home.>"],
    "audit_control_default": [">", "_INBOX_api.>", "control.home.>", "threads.home.>"],
}


class Server:
    """A server with the users of one region."""

    def __init__(self, root: Path) -> None:
        shown = re.sub(r"\$NATS_[A-Z_]+_PASSWORD", permitted.PASSWORD, render("home", [FEED]))
        self._process = start_nats(root, accounts=shown)
        self._opened: list[Connection] = []

    async def connect(self, user: str) -> Connection:
        """A connection as that user."""
        url = self._process.url.replace("://", f"://{user}:{permitted.PASSWORD}@")
        service = {"provision": "operator", "slipstream": "operator"}.get(user, user)
        access = Access(url, "") if user == FEED.name else Access(url, service)
        self._opened.append(await connect(access, user))
        return self._opened[-1]

    async def close(self) -> None:
        """Close all."""
        for opened in self._opened:
            await opened.close()
        self._process.stop()


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The server, provisioned by the user that is for it."""
    opened = Server(tmp_path_factory.mktemp("permissions"))
    maker = await opened.connect("provision")
    for _ in range(2):
        await provision(maker, "home")
        await provision_feed(maker, "home", FEED)
    yield opened
    await opened.close()


def test_the_shipped_configuration_is_the_code() -> None:
    shipped = (permitted.CONFIGS / "permissions.conf").read_text()
    assert shipped == render("local", [FEED]), "slipstream permissions --audit control.default > permissions.conf"
    for name in ("single.conf", "cluster.conf"):
        assert 'include "permissions.conf"' in (permitted.CONFIGS / name).read_text()


@pytest.mark.parametrize("text", ["control", "control.", "leases.default", "control.a.b", "threads.>", "threads.*"])
def test_what_is_no_feed_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        feed_of(text)


@pytest.mark.parametrize("user", MAY_NOT_PUBLISH)
async def test_a_user_may_not_publish_what_is_not_its_own(server: Server, user: str) -> None:
    connection = await server.connect(user)
    denied: set[str] = set()
    connection.on_denied(denied.add)
    for subject in MAY_NOT_PUBLISH[user]:
        await connection.publish(subject, b"{}")
    await until(lambda: len(denied) >= len(MAY_NOT_PUBLISH[user]), what="the refusals")
    assert denied == {subject.lower() for subject in MAY_NOT_PUBLISH[user]}


@pytest.mark.parametrize("user", MAY_NOT_SUBSCRIBE)
async def test_a_user_may_not_read_what_is_not_its_own(
    server: Server, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await server.connect(user)

    async def ignore(_: object) -> None:
        raise AssertionError("nothing may come")

    for subject in MAY_NOT_SUBSCRIBE[user]:
        await connection.subscribe(subject, cb=ignore)

    def refused() -> bool:
        return all(f'its subscription to "{subject.lower()}" is refused' in caplog.text.lower() for subject in
                   MAY_NOT_SUBSCRIBE[user])  # fmt: skip

    await until(refused, what="the refusals")


async def test_a_refused_publish_fails_at_once_and_is_told_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = await open_publisher(await server.connect("api"))
    for _ in range(3):
        with pytest.raises(Unavailable, match="lacks a permission"):
            await leases.take(publisher, HOME, "t", "api", "", expected=0)
    assert caplog.text.count(f'its publish to "{lease(HOME, "t")}" is refused') == 1


async def test_a_refused_request_says_what_is_missing(server: Server) -> None:
    connection = await server.connect("projector")
    with pytest.raises(Unavailable, match=r"lacks a permission .* on \$JS.API.STREAM.MSG.GET.CONTROL_home"):
        await connection.api("STREAM.MSG.GET.CONTROL_home", {"seq": 1}, deadline_s=0.5)


async def test_an_auditor_reads_its_tenant_and_nothing_else(server: Server) -> None:
    writer = await open_publisher(await server.connect("slipstream"))
    mine = [(await writer.publish(control(HOME, "a"), b"%d" % count)).stream_seq for count in range(3)]
    await writer.publish(control(OTHER, "a"), b"another tenant's")
    await writer.publish(work(HOME, "a"), b"work")
    auditor = await server.connect(FEED.name)
    seen: list[tuple[str, int]] = []

    async def take(message: object) -> None:
        subject, reply = str(getattr(message, "subject", "")), str(getattr(message, "reply", ""))
        if reply:
            seen.append((subject, int(reply.split(".")[5])))
            await auditor.publish(reply, b"+ACK")

    await auditor.subscribe("_INBOX.mine", cb=take)
    await auditor.publish(NEXT, b'{"batch":10,"expires":5000000000}', reply="_INBOX.mine")
    await until(lambda: len(seen) >= len(mine), what="the records")
    assert seen == [(control(HOME, "a"), seq) for seq in mine]
    operator = await server.connect("provision")

    async def acknowledged() -> bool:
        found = await operator.api(f"CONSUMER.INFO.CONTROL_home.{FEED.name}", {})
        return bool(found["ack_floor"]["stream_seq"] == mine[-1] and found["num_pending"] == 0)

    await until(acknowledged, what="the acknowledgements")


async def test_an_auditor_cannot_have_the_broker_write_for_it(server: Server) -> None:
    """An answer goes where the question says, and the server checks no permission on that. Its own account does."""
    auditor, reader = await server.connect(FEED.name), await server.connect("slipstream")
    for body in (b"{", b"", b'{"batch":-1}', b'{"batch":1,"no_wait":true}'):
        await auditor.publish(NEXT, body, reply=lease(HOME, "audited"))
    await auditor.publish("$JS.ACK.CONTROL_home.audit_control_default.1.1.1.1.0", b"+ACK", lease(HOME, "audited"))
    await auditor.flush()
    # What was sent before is handled before.
    await reader.api("STREAM.INFO.CONTROL_home", {})
    assert await last_of_subject(reader, threads_stream("home"), lease(HOME, "audited")) is None


async def test_what_permissions_cannot_hold(server: Server) -> None:
    """The limit that ADR 31 states: the broker's own answer to an API, of the broker's words, on a subject of a stream.

    It is no lease record, since no holder is in it, but it fences the holder. When a server refuses this one day, this
    test fails and the limit can go.
    """
    api, reader = await server.connect("api"), await server.connect("slipstream")
    await api.publish(work(HOME, "x"), b"{}", reply=lease(HOME, "forged"))
    found = None
    async with asyncio.timeout(10):
        while found is None:
            found = await last_of_subject(reader, threads_stream("home"), lease(HOME, "forged"))
    assert msgspec.json.decode(found.body, type=dict[str, object])["stream"] == "CONTROL_home"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(found.body, type=leases.LeaseTaken)


async def test_a_thread_log_takes_no_record_of_an_api(server: Server) -> None:
    publisher = await open_publisher(await server.connect("api"))
    with pytest.raises(Unavailable, match="lacks a permission"):
        await publisher.publish(thread_log(HOME, "t"), b"forged")
