"""The store in Postgres, seen by one tenant: LangGraph's own store over a pool, with what it leaves open closed.

Tenants. The first label of every stored namespace is the tenant; it is put on and taken off in `abatch`, through which
every operation goes, so a graph and the API see plain namespaces and never another tenant's.

One object for each run or question, as with checkpoints: a store batches what it is asked in one turn of the loop, and
an operation that fails takes its batch along.

Embeddings are asked for before a connection is taken. LangGraph holds one while it waits for the user's function, and
a slow model would then hold up the checkpoints of every run.

Semantic search is exact. An approximate index finds the nearest of all tenants and namespaces first and filters then,
so a small namespace in a large store would find nothing; LangGraph's statement to create one also fails above 2,000
dimensions. See ADR 18.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import psycopg
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
)
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.postgres.base import BasePostgresStore, PostgresIndexConfig

from slipstream_runner.checkpoints import Pool, setting_up
from slipstream_runner.store_settings import StoreSettings
from slipstream_schemas.errors import Rejected, Unavailable, Unreachable
from slipstream_schemas.limits import DATABASE_DEADLINE_S, STORE_EMBED_DEADLINE_S, STORE_SWEEP_ROWS
from slipstream_schemas.store import check_item
from slipstream_schemas.user_code import BadConfig

log = logging.getLogger("slipstream.runner")

Vectors = dict[str, list[float]]
_vectors: contextvars.ContextVar[Vectors] = contextvars.ContextVar("store_vectors")

SWEEP = """DELETE FROM store WHERE (prefix, key) IN (SELECT prefix, key FROM store
 WHERE expires_at < now() LIMIT %s FOR UPDATE SKIP LOCKED)"""
FORGET_VECTORS = """DELETE FROM store_vectors v USING unnest(%s::text[], %s::text[]) AS put (prefix, key)
 WHERE v.prefix = put.prefix AND v.key = put.key"""
STORED_DIMENSIONS = """SELECT atttypmod AS dims FROM pg_attribute
 WHERE attrelid = to_regclass('store_vectors') AND attname = 'embedding'"""
AS_NUMBER = "CASE WHEN jsonb_typeof(value->%s) = 'number' THEN (value->>%s)::numeric {} %s::numeric ELSE false END"
ORDERS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class _Prepared(Embeddings):
    """Gives out what was embedded before."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors = _vectors.get()
        return [vectors[text] for text in texts]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError("the store embeds asynchronously")

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError("the store embeds asynchronously")


def _index(settings: StoreSettings) -> PostgresIndexConfig | None:
    semantic = settings.semantic
    if semantic is None:
        return None
    return PostgresIndexConfig(dims=semantic.dims, embed=_Prepared(), fields=semantic.fields)


class TenantStore(AsyncPostgresStore):
    """The store of one tenant. Raises: Unavailable, Rejected, and LangGraph's InvalidNamespaceError."""

    VECTOR_MIGRATIONS = BasePostgresStore.VECTOR_MIGRATIONS[:2]

    def __init__(self, pool: Pool, tenant: str, settings: StoreSettings) -> None:
        # What has expired is gone at once, swept or not.
        ttl = TTLConfig(refresh_on_read=settings.refresh_on_read, default_ttl=settings.default_ttl, omit_expired=True)
        super().__init__(pool, index=_index(settings), ttl=ttl)
        self.settings, self._tenant = settings, tenant

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the task that LangGraph's store keeps for its queue; left to the collector it is reported as lost."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do all of them in one transaction of the database, or none."""
        scoped = [_scoped(op, self._tenant) for op in ops]
        token = _vectors.set(await self._embed(scoped))
        try:
            with _failures():
                async with asyncio.timeout(DATABASE_DEADLINE_S):
                    return [_shown(result) for result in await super().abatch(scoped)]
        finally:
            _vectors.reset(token)

    async def _embed(self, ops: list[Op]) -> Vectors:
        """Every text that the operations need embedded, in one call of the user's function. Raises: Unavailable."""
        semantic = self.settings.semantic
        if semantic is None:
            return {}
        _, wanted = self._prepare_batch_PUT_queries([(0, op) for op in ops if isinstance(op, PutOp)])
        _, queries = self._prepare_batch_search_queries([(0, op) for op in ops if isinstance(op, SearchOp)])
        texts = list(
            dict.fromkeys([each[-1] for each in (wanted[1] if wanted else ())] + [each[1] for each in queries])
        )
        if not texts:
            return {}
        try:
            async with asyncio.timeout(STORE_EMBED_DEADLINE_S):
                made = await semantic.embeddings.aembed_documents(texts)
        except Exception as error:
            log.warning("the embed function of the store failed", exc_info=error)
            raise Unavailable("the embed function of the store failed; the runner's log says why") from error
        if len(made) != len(texts) or any(len(vector) != semantic.dims for vector in made):
            text = f"the embed function did not make one vector of {semantic.dims} dimensions for each text"
            raise Unavailable(f"{text}: check `store.index` in langgraph.json")
        return dict(zip(texts, [[float(number) for number in vector] for vector in made], strict=True))

    def _prepare_batch_PUT_queries(  # noqa: N802  LangGraph's name
        self, put_ops: Sequence[tuple[int, PutOp]]
    ) -> tuple[list[Any], Any]:
        # LangGraph leaves the vectors of fields that the new value does not have, and finds the item by them.
        queries, wanted = super()._prepare_batch_PUT_queries(put_ops)
        if self.settings.semantic is not None:
            places = list(dict.fromkeys((".".join(op.namespace), op.key) for _, op in put_ops if op.value is not None))
            prefixes, keys = [place[0] for place in places], [place[1] for place in places]
            queries = [(FORGET_VECTORS, (prefixes, keys)), *queries] if places else queries
        return queries, wanted

    def _prepare_batch_search_queries(
        self, search_ops: Sequence[tuple[int, SearchOp]]
    ) -> tuple[list[tuple[str, list[Any]]], list[tuple[int, str]]]:
        # LangGraph bounds the vectors that it looks at (third last parameter) by the limit alone: later pages would be
        # empty.
        made: Any = super()._prepare_batch_search_queries(search_ops)
        queries, wanted = made
        for index, _ in wanted:
            op, params = search_ops[index][1], queries[index][1]
            params[-3] *= 2 + op.offset // max(op.limit, 1)
        return queries, wanted

    def _get_filter_condition(self, key: str, op: str, value: Any) -> tuple[str, list[Any]]:
        # LangGraph compares numbers as text, where 10 comes before 9.
        if op in ORDERS and isinstance(value, (int, float)) and not isinstance(value, bool):
            return AS_NUMBER.format(ORDERS[op]), [key, key, str(value)]
        return super()._get_filter_condition(key, op, value)


def _scoped(op: Op, tenant: str) -> Op:
    """The operation on what is stored, where the tenant is the first label."""
    if isinstance(op, GetOp):
        return op._replace(namespace=(tenant, *op.namespace))
    if isinstance(op, PutOp):
        if not op.namespace:
            raise InvalidNamespaceError("Namespace cannot be empty.")
        if op.value is not None:
            check_item(op.namespace, op.key, op.value)
        return op._replace(namespace=(tenant, *op.namespace))
    if isinstance(op, SearchOp):
        return op._replace(namespace_prefix=(tenant, *op.namespace_prefix))
    assert isinstance(op, ListNamespacesOp)
    return _scoped_listing(op, tenant)


def _scoped_listing(op: ListNamespacesOp, tenant: str) -> ListNamespacesOp:
    asked = op.match_conditions or ()
    # A suffix must not reach over the tenant's label: there are at least as many labels behind it.
    depth = max((len(each.path) for each in asked), default=0)
    prefixes = [each.path for each in asked if each.match_type == "prefix"] or [()]
    conditions = [each for each in asked if each.match_type == "suffix"]
    for prefix in prefixes:
        conditions.append(MatchCondition("prefix", (tenant, *prefix, *["*"] * (depth - len(prefix)))))
    deeper = None if op.max_depth is None else op.max_depth + 1
    return op._replace(match_conditions=tuple(conditions), max_depth=deeper)


def _shown(result: Result) -> Result:
    """The result without the tenant."""
    if isinstance(result, Item):
        result.namespace = result.namespace[1:]
    elif isinstance(result, list):
        return [_shown(each) if isinstance(each, Item) else each[1:] for each in result]  # type: ignore[return-value]
    return result


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Name what the database says."""
    try:
        yield
    except psycopg.errors.ProgramLimitExceeded as error:
        raise Rejected(f"the namespace and the key are too long together: {error}") from error
    except (psycopg.DataError, psycopg.errors.PipelineAborted) as error:
        raise Rejected(f"Postgres cannot store this: {error}") from error
    except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
        raise Unreachable(f"Postgres does not serve the store: {error}") from error


async def set_up_store(pool: Pool, settings: StoreSettings) -> None:
    """Create the store's tables; one process at a time. Raises: BadConfig, Unavailable.

    The tables of semantic search, and the extension that they need, come with the first runner that has an index.
    """
    async with setting_up(pool) as connection:
        store = AsyncPostgresStore(connection)
        await store.setup()
        if settings.semantic is None:
            return
        store = _SettingUp(connection, index=_index(settings))
        try:
            await store.setup()
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile, psycopg.errors.UndefinedObject,
                psycopg.errors.InsufficientPrivilege) as error:  # fmt: skip
            text = "`store.index` needs the extension `vector` (pgvector) in Postgres, which cannot be had"
            raise BadConfig(f"{text}: {error}") from error
        row = await (await connection.execute(STORED_DIMENSIONS)).fetchone()
        if row is not None and row["dims"] != settings.semantic.dims:
            raise BadConfig(
                f"`store.index` has {settings.semantic.dims} dimensions, and the vectors in the database have "
                f"{row['dims']}: set `dims` back, or drop the tables store_vectors and vector_migrations and put the "
                "items again"
            )


class _SettingUp(AsyncPostgresStore):
    VECTOR_MIGRATIONS = TenantStore.VECTOR_MIGRATIONS


async def sweep_expired(pool: Pool) -> int:
    """Delete the items whose time is over, some at a time; how many there were. Raises: Unavailable."""
    swept = 0
    with _failures():
        while True:
            async with asyncio.timeout(DATABASE_DEADLINE_S), pool.connection() as connection:
                count = (await connection.execute(SWEEP, (STORE_SWEEP_ROWS,))).rowcount
            swept += count
            if count < STORE_SWEEP_ROWS:
                return swept
