"""What is a row's fault, and what is Postgres being away."""

import asyncpg
import pytest

from slipstream_postgres.refusals import RowRefused, is_outage, is_refusal, refusals, sqlstate_of
from slipstream_schemas.errors import Unavailable

REFUSED = (
    asyncpg.UntranslatableCharacterError, asyncpg.NumericValueOutOfRangeError, asyncpg.NotNullViolationError,
    asyncpg.UniqueViolationError, asyncpg.ProgramLimitExceededError, asyncpg.StatementTooComplexError,
    asyncpg.InvalidTextRepresentationError, asyncpg.CardinalityViolationError, asyncpg.DataError,
)  # fmt: skip
AWAY = (
    asyncpg.ConnectionDoesNotExistError, asyncpg.ReadOnlySQLTransactionError, asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError, asyncpg.TooManyConnectionsError, asyncpg.DiskFullError,
    asyncpg.LockNotAvailableError, asyncpg.AdminShutdownError, asyncpg.CannotConnectNowError,
    asyncpg.QueryCanceledError, asyncpg.PostgresIOError,
)  # fmt: skip
NEITHER = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError,
           asyncpg.DataCorruptedError)  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_row_that_is_never_taken_is_refused(kind: type[asyncpg.PostgresError]) -> None:
    assert is_refusal(kind("x")) and not is_outage(kind("x"))
    with pytest.raises(RowRefused, match=sqlstate_of(kind("x"))), refusals():
        raise kind("x")


@pytest.mark.parametrize("kind", [*AWAY, *NEITHER])
def test_everything_else_is_waited_for(kind: type[asyncpg.PostgresError]) -> None:
    assert not is_refusal(kind("x"))
    assert is_outage(kind("x")) == (kind in AWAY)
    with pytest.raises(Unavailable), refusals():
        raise kind("x")
