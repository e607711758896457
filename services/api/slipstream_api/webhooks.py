"""Webhooks: what is posted when a run has ended.

Theory of operation. The projector notes the end of a run that names a webhook in the transaction that folds the end, so
the note exists exactly when the end is projected, whatever dies. Every API instance looks for notes that are due and
takes some by moving their due time on: that one instance wins, and if it dies, the note is due again. A delivery that
is answered with 2xx is over; every other is repeated, with pauses that double. So a receiver is told at least once, and
nearly always once; a repeat has the same `webhook-id`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from slipstream_api.context import Context
from slipstream_api.webhook_post import headers_of, key_of, new_client, post
from slipstream_postgres import webhooks as rows
from slipstream_postgres.rows import RunRow
from slipstream_postgres.webhooks import DueWebhook
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.ids import derived_id
from slipstream_schemas.limits import (
    CRON_SWEEP_S,
    WEBHOOK_CLAIM_S,
    WEBHOOK_GIVE_UP_S,
    WEBHOOK_KEPT_S,
    WEBHOOK_POLL_S,
    WEBHOOK_RETRY_S,
    WEBHOOK_RETRY_S_MAX,
    WEBHOOKS_AT_ONCE,
)

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("slipstream.webhooks")

FORGET_EVERY_S = 600.0


class WebhookBody(RunRow, kw_only=True):
    """What is posted: the run's row, and what became of the run."""

    run_started_at: str | None
    run_ended_at: str
    webhook_sent_at: str
    values: msgspec.Raw
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Asked(msgspec.Struct):
    webhook: str


def body_of(webhook: DueWebhook, sent_at: str) -> bytes:
    """The body of a delivery."""
    error = msgspec.UNSET if webhook.error is None else msgspec.Raw(webhook.error)
    body = WebhookBody(
        **{name: getattr(webhook.run, name) for name in RunRow.__struct_fields__},
        run_started_at=webhook.started_at, run_ended_at=webhook.run.updated_at, webhook_sent_at=sent_at,
        values=webhook.values, error=error,
    )  # fmt: skip
    return msgspec.json.encode(body)


def pause_s(tries: int) -> float:
    """How long to wait after so many tries."""
    return min(WEBHOOK_RETRY_S * 2.0 ** min(tries - 1, 32), WEBHOOK_RETRY_S_MAX)


@asynccontextmanager
async def delivering(context: Context) -> AsyncIterator[None]:
    """Deliver in the background. Raises: Rejected for a secret that is none."""
    deliverer = _Deliverer(context, key_of(context.settings.webhook_secret))
    if not context.settings.webhook_secret:
        log.info("webhooks are not signed: set SLIPSTREAM_WEBHOOK_SECRET")
    task = asyncio.create_task(deliverer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await deliverer.close()


class _Deliverer:
    """The deliveries of this process; a slow receiver holds one of `WEBHOOKS_AT_ONCE` places."""

    def __init__(self, context: Context, key: bytes) -> None:
        self._context, self._key = context, key
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgotten = 0.0

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            try:
                await self._take_due()
                await asyncio.sleep(WEBHOOK_POLL_S)
            except SlipstreamError as error:
                log.warning("webhooks wait: %s", error.message)
                await asyncio.sleep(CRON_SWEEP_S)
            except Exception:
                log.exception("looking for webhooks failed")
                await asyncio.sleep(CRON_SWEEP_S)

    async def close(self) -> None:
        """Break off what is under way: it is due again later, here or elsewhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _take_due(self) -> None:
        if time.monotonic() - self._forgotten > FORGET_EVERY_S:
            await rows.forget(self._context.database, WEBHOOK_KEPT_S)
            self._forgotten = time.monotonic()
        free = WEBHOOKS_AT_ONCE - len(self._tasks)
        if free <= 0:
            return
        for webhook in await rows.claim(self._context.database, WEBHOOK_CLAIM_S, free):
            self._context.crash.reach("webhook_claimed")
            task = asyncio.create_task(self._deliver(webhook))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, webhook: DueWebhook) -> None:
        try:
            await self._try(webhook)
        except SlipstreamError as error:
            await self._put_off(webhook, error.message)
        except Exception:
            log.exception("the webhook of run %s failed", webhook.run.run_id)
            await self._put_off(webhook, "an unexpected error")

    async def _try(self, webhook: DueWebhook) -> None:
        self._client = self._client or new_client()
        now = time.time()
        body = body_of(webhook, datetime.fromtimestamp(now, UTC).isoformat())
        delivery_id = derived_id("webhook", webhook.tenant, webhook.run.run_id)
        headers = headers_of(self._key, delivery_id, int(now), body)
        url = msgspec.json.decode(webhook.run.kwargs, type=_Asked).webhook
        await post(self._client, url, headers, body, allow_private=self._context.settings.webhook_allow_private)
        self._context.crash.reach("webhook_sent")
        await rows.said(self._context.database, webhook)

    async def _put_off(self, webhook: DueWebhook, why: str) -> None:
        run_id, wait_s = webhook.run.run_id, pause_s(webhook.tries)
        try:
            goes_on = await rows.again(self._context.database, webhook, wait_s, WEBHOOK_GIVE_UP_S)
        except SlipstreamError as error:
            log.warning("the webhook of run %s is tried again when its claim is over: %s", run_id, error.message)
            return
        if goes_on:
            log.warning("the webhook of run %s is tried again in %.0f s: %s", run_id, wait_s, why)
        else:
            log.error("the webhook of run %s is given up after %d tries: %s", run_id, webhook.tries, why)
