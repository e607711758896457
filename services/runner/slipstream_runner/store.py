"""The store of a runner: given to its graphs, answered for to the API, swept of what expired.

The API asks a runner for every operation, so that there is one implementation of the store and user code (`embed`)
runs here alone. See ADR 18.
"""

import asyncio
import logging
from typing import Any, cast

import msgspec
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from slipstream_nats import rpc
from slipstream_nats.connection import Connection
from slipstream_runner.checkpoints import Pool, open_pool
from slipstream_runner.store_settings import StoreSettings
from slipstream_runner.tenant_store import TenantStore, set_up_store, sweep_expired
from slipstream_schemas import subjects
from slipstream_schemas.codec import dumps
from slipstream_schemas.errors import SlipstreamError, TooLarge
from slipstream_schemas.limits import STORE_POOL_SIZE, STORE_WAITING_MAX
from slipstream_schemas.store import DeleteItem, GetItem, ListNamespaces, PutItem, SearchItems, StoreQuestion

ENVELOPE_BYTES = 256

log = logging.getLogger("slipstream.runner")

_decode = msgspec.json.Decoder(StoreQuestion).decode


class Stores:
    """The stores of this process. Graphs share the pool of the checkpoints; the API's questions have one of their own,
    so that a flood of them does not keep runs from their checkpoints.
    """

    def __init__(self, graphs_pool: Pool, asked_pool: Pool, settings: StoreSettings) -> None:
        self._graphs_pool, self._asked_pool, self.settings = graphs_pool, asked_pool, settings

    def for_graph(self, tenant: str) -> TenantStore:
        """The store that one run or question gives its graph. Use it as an async context manager."""
        return TenantStore(self._graphs_pool, tenant, self.settings)

    def for_api(self, tenant: str) -> TenantStore:
        """The store of one question of the API. Use it as an async context manager."""
        return TenantStore(self._asked_pool, tenant, self.settings)

    async def sweep(self) -> None:
        """Delete what has expired, now and every `sweep_interval_minutes`. For ever."""
        while True:
            try:
                swept = await sweep_expired(self._asked_pool)
                if swept:
                    log.info("%d items of the store had expired", swept)
            except SlipstreamError as error:
                log.warning("expired items of the store stay for now: %s", error.message)
            await asyncio.sleep(self.settings.sweep_minutes * 60)

    async def close(self) -> None:
        """Close the pool that is ours."""
        await self._asked_pool.close()


async def open_stores(dsn: str, graphs_pool: Pool, settings: StoreSettings) -> Stores:
    """The stores, with their tables. Raises: BadConfig, Unavailable."""
    await set_up_store(graphs_pool, settings)
    return Stores(graphs_pool, await open_pool(dsn, STORE_POOL_SIZE, STORE_WAITING_MAX), settings)


async def serve(connection: Connection, region: str, stores: Stores) -> None:
    """Answer the API's questions. Raises: Unavailable."""

    async def answer(body: bytes) -> bytes:
        question = _decode(body)
        async with stores.for_api(question.tenant) as store:
            made = dumps(await _answer(store, question))
        if len(made) > connection.payload_bytes_max - ENVELOPE_BYTES:
            raise TooLarge(f"the answer has {len(made)} bytes, which is too large: ask for fewer with `limit`")
        return made

    await rpc.serve(connection, subjects.store_rpc(region), answer, "runners")


async def _answer(store: TenantStore, question: StoreQuestion) -> Any:
    """One operation on its own: in a store's queue it would share the fate of others. Raises: Rejected, Unavailable."""
    settings, namespace = store.settings, _path(question)
    match question:
        case PutItem():
            ttl = settings.default_ttl if question.ttl is msgspec.UNSET else question.ttl
            index = question.index if question.index is not True else None
            await store.abatch([PutOp(namespace, question.key, question.value, index, ttl)])
            return None
        case GetItem():
            (found,) = await store.abatch([GetOp(namespace, question.key, settings.refreshes(question.refresh_ttl))])
            return cast("Item", found).dict() if found is not None else None
        case DeleteItem():
            await store.abatch([PutOp(namespace, question.key, None)])
            return None
        case SearchItems():
            refresh = settings.refreshes(question.refresh_ttl)
            wanted = {field: _operators(value) for field, value in (question.filter or {}).items()}
            op = SearchOp(namespace, wanted, question.limit, question.offset, question.query, refresh)
            (items,) = await store.abatch([op])
            return {"items": [item.dict() for item in cast("list[Item]", items)]}
        case ListNamespaces():
            (namespaces,) = await store.abatch([_listing(question)])
            return {"namespaces": namespaces}


def _path(question: StoreQuestion) -> tuple[str, ...]:
    if isinstance(question, ListNamespaces):
        return ()
    return tuple(question.namespace_prefix if isinstance(question, SearchItems) else question.namespace)


def _operators(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {"$eq": value}


def _listing(question: ListNamespaces) -> ListNamespacesOp:
    conditions = (MatchCondition("prefix", tuple(question.prefix)), MatchCondition("suffix", tuple(question.suffix)))
    asked = tuple(each for each in conditions if each.path)
    return ListNamespacesOp(asked, question.max_depth, question.limit, question.offset)
