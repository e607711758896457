"""What is to be said of runs that have ended, and when it is tried next."""

from datetime import timedelta
from typing import Any

import msgspec

from slipstream_postgres.pool import Database
from slipstream_postgres.rows import RunRow, moment, raw, run_row

NOT_DUE = "due_at=NULL, values=NULL, kwargs='{}', metadata='{}'"
"""The row stays for a while, so that a rebuild does not make it due again; what was said need not."""


class DueWebhook(msgspec.Struct, frozen=True):
    """A run's end that is to be told now: its row then, and how often that was tried, this time included."""

    tenant: str
    run: RunRow
    started_at: str | None
    values: msgspec.Raw
    error: bytes | None
    tries: int


async def claim(database: Database, claim_s: float, limit: int) -> list[DueWebhook]:
    """Take what is due, the most overdue first; nobody else gets it for `claim_s`. Raises: Unavailable."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "UPDATE webhooks w SET due_at=now() + $1::interval, tries=w.tries + 1 FROM (SELECT tenant, run_id "
            "FROM webhooks WHERE due_at <= now() ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) due "
            "WHERE w.tenant=due.tenant AND w.run_id=due.run_id RETURNING w.*",
            timedelta(seconds=claim_s), limit,
        )  # fmt: skip
    return [_due(row) for row in rows]


def _due(row: Any) -> DueWebhook:
    started_at = None if row["started_at"] is None else moment(row["started_at"])
    return DueWebhook(row["tenant"], run_row(row), started_at, raw(row["values"]), row["error"], row["tries"])


async def again(database: Database, webhook: DueWebhook, wait_s: float, give_up_s: float) -> bool:
    """Try it once more after `wait_s`; False when the run ended `give_up_s` ago, then never. Raises: Unavailable."""
    key = (webhook.tenant, webhook.run.run_id)
    async with database.connection() as connection:
        put_off = await connection.fetchrow(
            "UPDATE webhooks SET due_at=now() + $3::interval WHERE tenant=$1 AND run_id=$2 AND due_at IS NOT NULL "
            "AND updated_at > now() - $4::interval RETURNING run_id",
            *key, timedelta(seconds=wait_s), timedelta(seconds=give_up_s),
        )  # fmt: skip
        if put_off is None:
            await connection.execute(f"UPDATE webhooks SET {NOT_DUE} WHERE tenant=$1 AND run_id=$2", *key)
    return put_off is not None


async def said(database: Database, webhook: DueWebhook) -> None:
    """It was delivered. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute(
            f"UPDATE webhooks SET {NOT_DUE} WHERE tenant=$1 AND run_id=$2", webhook.tenant, webhook.run.run_id
        )


async def forget(database: Database, older_than_s: float) -> None:
    """Drop what is long over. Raises: Unavailable."""
    async with database.connection() as connection:
        await connection.execute(
            "DELETE FROM webhooks WHERE updated_at < now() - $1::interval", timedelta(seconds=older_than_s)
        )
