"""`slipstream quarantine`: what an operator does about control records that could not be applied."""

import asyncio
import sys
from collections.abc import Sequence

import msgspec

from slipstream_nats.connection import connect
from slipstream_postgres import quarantine
from slipstream_postgres.pool import open_database
from slipstream_projector.quarantine import retry
from slipstream_schemas import subjects
from slipstream_schemas.errors import Corrupt
from slipstream_schemas.settings import ServiceSettings, log_to_stderr, settings_from_environment

LISTED_MAX = 1000
ERROR_CHARS_MAX = 100


class _Name(msgspec.Struct):
    """The one field of a transition that is most likely readable."""

    name: str = "?"


def _settings() -> ServiceSettings:
    settings = settings_from_environment()
    log_to_stderr(settings.log_level, settings.log_format)
    return settings


def _transition_of(entry: quarantine.Quarantined) -> str:
    try:
        return msgspec.json.decode(entry.body, type=_Name).name
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "unreadable"


def _place_of(entry: quarantine.Quarantined) -> tuple[str, str]:
    try:
        where = subjects.parse(entry.subject)
    except Corrupt:
        return "?", entry.subject
    return where.scope.tenant, where.thread_id


async def _entries(settings: ServiceSettings) -> list[quarantine.Quarantined]:
    database = await open_database(settings.database_url)
    try:
        return await quarantine.entries(database, LISTED_MAX)
    finally:
        await database.close()


def run_list() -> int:
    """`slipstream quarantine list`: one line for each record, oldest first."""
    found = asyncio.run(_entries(_settings()))
    for entry in found:
        tenant, thread_id = _place_of(entry)
        error = " ".join(entry.error.split())[:ERROR_CHARS_MAX]
        print(
            f"{entry.stream_seq}  {entry.at:%Y-%m-%dT%H:%M:%SZ}  {tenant}/{thread_id}  {_transition_of(entry)}  {error}"
        )
    more = " or more" if len(found) == LISTED_MAX else ""
    print(f"{len(found)}{more} records in the quarantine", file=sys.stderr)
    return 0


async def _one(settings: ServiceSettings, seq: int) -> quarantine.Quarantined | None:
    database = await open_database(settings.database_url)
    try:
        return await quarantine.get(database, seq)
    finally:
        await database.close()


def run_show(seq: int) -> int:
    """`slipstream quarantine show`: where the record lies, why it is here, and its body."""
    entry = asyncio.run(_one(_settings(), seq))
    if entry is None:
        print(f"slipstream: record {seq} is not in the quarantine", file=sys.stderr)
        return 1
    print(f"seq      {entry.stream_seq}\nsubject  {entry.subject}")
    print(f"at       {entry.at.isoformat()}\nerror    {entry.error}")
    print(f"body     {entry.body.decode(errors='backslashreplace')}")
    return 0


async def _retry(settings: ServiceSettings, seqs: Sequence[int]) -> list[int]:
    connection = await connect(settings.nats_url, "slipstream-quarantine")
    database = await open_database(settings.database_url)
    try:
        return await retry(connection, database, settings.region, seqs)
    finally:
        await database.close()
        await connection.close()


def run_retry(seqs: Sequence[int]) -> int:
    """`slipstream quarantine retry`: fold the threads of these records again."""
    left = asyncio.run(_retry(_settings(), seqs))
    if left:
        print(f"still in the quarantine: {' '.join(map(str, left))}", file=sys.stderr)
        return 1
    print("applied; the threads' rows are whole")
    return 0


async def _skip(settings: ServiceSettings, seqs: Sequence[int]) -> int:
    database = await open_database(settings.database_url)
    try:
        return await quarantine.drop(database, seqs)
    finally:
        await database.close()


def run_skip(seqs: Sequence[int]) -> int:
    """`slipstream quarantine skip`: forget these records."""
    gone = asyncio.run(_skip(_settings(), seqs))
    print(f"{gone} of {len(set(seqs))} records left the quarantine; their rows stay as they are")
    return 0 if gone == len(set(seqs)) else 1
