"""Telling a row that Postgres will never take from a Postgres that takes nothing now.

A refusal is a property of the row: a repeat gives the same answer. Everything else, what is not known included, is an
outage: waiting can help, or an operator, and what waits is not lost. So only what is surely the row's fault is named.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

import asyncpg

from slipstream_schemas.errors import Rejected, Unavailable

REFUSAL_CLASSES: Final = frozenset({"21", "22", "23", "54"})
"""SQLSTATE classes: cardinality violation, data exception, integrity constraint violation, program limit exceeded."""
OUTAGE_CLASSES: Final = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Connection, transaction state (a read-only server), rollback, resources, object state, intervention, system error."""


class RowRefused(Rejected):
    """Postgres will never take this row; the message says why."""


def is_refusal(error: BaseException) -> bool:
    """Whether a repeat would fail again, whatever becomes of Postgres."""
    return isinstance(error, asyncpg.PostgresError) and _class_of(error) in REFUSAL_CLASSES


def is_outage(error: BaseException) -> bool:
    """Whether Postgres as a whole does not do its work now."""
    return isinstance(error, asyncpg.PostgresError) and _class_of(error) in OUTAGE_CLASSES


def _class_of(error: asyncpg.PostgresError) -> str:
    return sqlstate_of(error)[:2]


def sqlstate_of(error: asyncpg.PostgresError) -> str:
    """The five characters that Postgres gave; empty where it gave none."""
    return str(getattr(error, "sqlstate", None) or "")


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raises: RowRefused for what is the row's fault, Unavailable for everything else that Postgres says."""
    try:
        yield
    except asyncpg.PostgresError as error:
        text = f"{type(error).__name__} ({sqlstate_of(error)}): {error}"
        if is_refusal(error):
            raise RowRefused(text) from error
        raise Unavailable(f"Postgres does not take rows: {text}") from error
