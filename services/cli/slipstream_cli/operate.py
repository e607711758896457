"""What an operator does to a system: provision it, rebuild its rows, look whether it is well."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from slipstream_nats.connection import OPERATOR, access_of, connect
from slipstream_nats.permissions import Feed, feed_of, render
from slipstream_nats.provision import StreamSettings, provision, provision_feed
from slipstream_postgres.migrate import ensure_schema
from slipstream_postgres.pool import open_database
from slipstream_projector.rebuild import bar, checksum, rebuild
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.ids import check_token
from slipstream_schemas.settings import ServiceSettings, log_to_stderr, settings_from_environment


async def prepare(settings: ServiceSettings, feeds: Sequence[Feed] = ()) -> None:
    """Streams and tables. Raises: Unavailable, ProvisionRefused."""
    connection = await connect(access_of(settings, OPERATOR), "slipstream-provision")
    try:
        streams = StreamSettings(settings.replicas, settings.ack_wait_s)
        await provision(connection, settings.region, streams)
        for feed in feeds:
            await provision_feed(connection, settings.region, feed, settings.replicas)
    finally:
        await connection.close()
    await ensure_schema(settings.database_url)


def run_permissions(region: str, feeds: list[str]) -> int:
    """`slipstream permissions`. Raises: Rejected."""
    print(render(check_token(region, "region"), [feed_of(each) for each in feeds]), end="")
    return 0


def run_provision(feeds: list[str]) -> int:
    """`slipstream provision`."""
    audited = [feed_of(each) for each in feeds]
    settings = settings_from_environment()
    log_to_stderr(settings.log_level, settings.log_format)
    asyncio.run(prepare(settings, audited))
    print(f"region {settings.region}: streams and tables are as they should be")
    return 0


async def _rebuild(settings: ServiceSettings) -> str:
    connection = await connect(access_of(settings, OPERATOR), "slipstream-rebuild")
    database = await open_database(settings.database_url)
    try:
        applied = await rebuild(connection, database, settings.region, bar(time.monotonic()))
        return f"applied {applied} records; checksum {await checksum(database)}"
    finally:
        await database.close()
        await connection.close()


def run_rebuild() -> int:
    """`slipstream rebuild`."""
    settings = settings_from_environment()
    log_to_stderr(settings.log_level, settings.log_format)
    print(asyncio.run(_rebuild(settings)))
    return 0


async def _checks(settings: ServiceSettings) -> int:
    failures = 0
    try:
        connection = await connect(access_of(settings, OPERATOR), "slipstream-doctor", 3.0)
        print("NATS answers")
        await provision(connection, settings.region, StreamSettings(settings.replicas, settings.ack_wait_s))
        print("streams are as they should be")
        await connection.close()
    except SlipstreamError as error:
        failures += 1
        print(f"NATS: {error.message}\n  start a nats-server with JetStream and set NATS_URL", file=sys.stderr)
    try:
        await ensure_schema(settings.database_url)
        print("Postgres answers, its tables are current")
    except SlipstreamError as error:
        failures += 1
        print(f"Postgres: {error.message}\n  start a Postgres and set DATABASE_URL", file=sys.stderr)
    return failures


def run_doctor(config: Path) -> int:
    """`slipstream doctor`."""
    settings = settings_from_environment()
    failures = asyncio.run(_checks(settings))
    try:
        from slipstream_runner.graphs import Graphs

        print(f"graphs: {', '.join(Graphs.load(config).ids)}")
    except SlipstreamError as error:
        failures += 1
        print(f"graphs: {error.message}", file=sys.stderr)
    return 1 if failures else 0
