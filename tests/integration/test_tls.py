"""TLS to NATS and to Postgres: all works over it, and nothing is said to a server that is not who it should be."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

from slipstream_nats.connection import Access, connect
from slipstream_nats.embedded import NatsProcess, start_nats
from slipstream_nats.provision import provision
from slipstream_postgres.migrate import ensure_schema
from slipstream_postgres.pool import open_database
from slipstream_schemas.errors import Rejected, Unavailable
from testkit import permitted
from testkit.client import Client, new_thread
from testkit.stack import Stack
from testkit.tls import HOST, Certificates, PostgresTls, issue

SERVER: Final = """
tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{ca}", verify: true }}
"""
PASSWORD: Final = "never-in-the-clear"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return issue(tmp_path / "tls")


def start(root: Path, found: Certificates) -> NatsProcess:
    """A server that speaks TLS alone, with clients that show a certificate, and with our users."""
    tls = SERVER.format(cert=found.cert_file, key=found.key_file, ca=found.ca_file)
    return start_nats(root, accounts=permitted.accounts() + tls)


@pytest.fixture
def nats(tmp_path: Path, certificates: Certificates) -> Iterator[NatsProcess]:
    server = start(tmp_path / "nats", certificates)
    yield server
    server.stop()


def access(server: NatsProcess, found: Certificates, *, ca_file: str = "", client: bool = True) -> Access:
    """How to get into the server."""
    shown = (found.client_cert_file, found.client_key_file) if client else ("", "")
    return Access(f"tls://{HOST}:{urlsplit(server.url).port}", "operator", ca_file or found.ca_file, *shown)


async def test_a_whole_stack_runs_over_tls(
    nats: NatsProcess, certificates: Certificates, database_dsn: str, region: str, tmp_path: Path
) -> None:
    parts = urlsplit(database_dsn)
    async with PostgresTls(parts.port or 0, certificates) as door:
        dsn = f"postgresql://postgres@{HOST}:{door.port}{parts.path}?sslmode=verify-full&sslrootcert={certificates.ca_file}"
        maker = await connect(access(nats, certificates), "test")
        await provision(maker, region)
        await maker.close()
        await ensure_schema(dsn)
        with Stack(access(nats, certificates).url, dsn, region, tmp_path / "stack") as stack:
            stack.settings |= {
                "slipstream_nats_ca_file": certificates.ca_file,
                "slipstream_nats_cert_file": certificates.client_cert_file,
                "slipstream_nats_key_file": certificates.client_key_file,
            }
            await asyncio.to_thread(stack.start)
            async with Client(stack.url) as client:
                thread_id = new_thread()
                await client.start(thread_id, "counter", {"steps": 2, "delay_s": 0.01})
                seen = await client.run_events(thread_id)
                told = [frame.body["params"]["data"]["event"] for frame in seen if frame.event == "lifecycle"]
                assert told == ["running", "completed"]
                state = (await client.http.get(f"/threads/{thread_id}/state")).raise_for_status().json()
                assert state["values"]
            assert not stack.refusals()
        assert door.encrypted > 3 and door.refused == 0


async def test_nats_must_be_who_it_says(nats: NatsProcess, certificates: Certificates, tmp_path: Path) -> None:
    foreign = issue(tmp_path / "foreign")
    with pytest.raises(Unavailable, match=r"(?i)certificate verify failed"):
        await connect(access(nats, certificates, ca_file=foreign.ca_file), "test", deadline_s=1)
    named = issue(tmp_path / "named", "elsewhere.example.com")
    server = start(tmp_path / "named-nats", named)
    try:
        with pytest.raises(Unavailable, match=r"(?i)certificate verify failed"):
            await connect(access(server, named), "test", deadline_s=1)
    finally:
        server.stop()


async def test_nats_asks_for_the_clients_certificate(nats: NatsProcess, certificates: Certificates) -> None:
    with pytest.raises(Unavailable, match="no NATS server answers"):
        await connect(access(nats, certificates, client=False), "test", deadline_s=1)
    opened = await connect(access(nats, certificates), "test")
    await opened.flush()
    await opened.close()


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_no_password_goes_to_a_server_that_leaves_tls_out(certificates: Certificates, scheme: str) -> None:
    """Somebody in between may say that there is no TLS; nats-py would believe it, and say the password."""
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(
            b'INFO {"server_id":"x","version":"2.15.1","headers":true,"max_payload":1000,"auth_required":true}\r\n'
        )
        heard += await reader.read(65536)
        writer.close()

    server = await asyncio.start_server(plain, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    asked = Access(f"{scheme}://api:{PASSWORD}@{HOST}:{port}", "api", certificates.ca_file)
    with pytest.raises(Unavailable, match="does not offer TLS") as refused:
        await connect(asked, "test", deadline_s=1)
    server.close()
    assert heard == b"" and PASSWORD not in refused.value.message


async def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="certificates for NATS"):
        await connect(Access("tls://127.0.0.1:1", "api", str(tmp_path / "missing.pem")), "test")


async def test_postgres_must_be_who_it_says(certificates: Certificates, database_dsn: str, tmp_path: Path) -> None:
    """Both drivers, by the address alone."""
    parts = urlsplit(database_dsn)
    foreign, named = issue(tmp_path / "foreign"), issue(tmp_path / "named", "elsewhere.example.com")

    async def opens(dsn: str) -> list[bool]:
        found: list[bool] = []
        for attempt in (_asyncpg, _psycopg):
            try:
                await attempt(dsn)
                found.append(True)
            except (Unavailable, psycopg.OperationalError):
                found.append(False)
        return found

    async with PostgresTls(parts.port or 0, certificates) as door, PostgresTls(parts.port or 0, named) as elsewhere:

        def dsn(where: PostgresTls, ca_file: str) -> str:
            query = f"sslmode=verify-full&sslrootcert={ca_file}"
            return f"postgresql://postgres@{HOST}:{where.port}{parts.path}?{query}"

        assert await opens(dsn(door, certificates.ca_file)) == [True, True]
        assert await opens(dsn(door, foreign.ca_file)) == [False, False]
        assert await opens(dsn(elsewhere, named.ca_file)) == [False, False]


async def _asyncpg(dsn: str) -> None:
    await (await open_database(dsn)).close()


async def _psycopg(dsn: str) -> None:
    # What the pool of checkpoints and the migrations connect with.
    await (await psycopg.AsyncConnection.connect(dsn)).close()
