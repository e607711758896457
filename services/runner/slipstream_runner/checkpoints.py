"""Checkpoints in Postgres, fenced: a write commits only while the run's lease is the highest one.

One saver object for each run over a shared pool: a saver serialises everything on one lock. LangGraph's tables know no
tenant, so the stored thread id is `<tenant>/<thread_id>`, and graphs see the plain one.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.types import ERROR
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from slipstream_postgres.refusals import OUTAGE_CLASSES
from slipstream_schemas.codec import Path, Unserialisable
from slipstream_schemas.errors import Fenced, Unavailable, Unreachable
from slipstream_schemas.limits import (
    CHECKPOINT_OUTAGE_S,
    DATABASE_DEADLINE_S,
    PATH_STEPS_MAX,
    PEER_SILENCE_S,
    TRANSACTION_DEADLINE_S,
)
from slipstream_schemas.subjects import Scope, thread_key

log = logging.getLogger("slipstream.runner")

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 1, "keepalives_count": 3,
              "tcp_user_timeout": 1000 * PEER_SILENCE_S, "connect_timeout": int(DATABASE_DEADLINE_S)}  # fmt: skip
"""The kernel notices a peer that is gone where it can."""
T = TypeVar("T")
RETRY_WAIT_S = 0.5
ERROR_SOURCE_NODE = "__error_source_node__"
"""Where LangGraph notes which node's handler takes an error."""
NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"
SETUP_LOCK = 0x511B
SETUP_POLL_S = 0.05
SETUP_DEADLINE_S = 60.0
CHECK = "SELECT 1/count(*) FROM (SELECT 1 FROM fences WHERE thread_key=%s AND fence=%s FOR SHARE) held"
COPY = """WITH kept AS (INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type,
 checkpoint, metadata) SELECT %(to)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
 metadata || jsonb_build_object('thread_id', %(plain)s::text) FROM checkpoints WHERE thread_id=%(from)s),
 blobs AS (INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
 SELECT %(to)s, checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs WHERE thread_id=%(from)s)
 INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
 SELECT %(to)s, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path
 FROM checkpoint_writes WHERE thread_id=%(from)s"""
"""One statement, so that it sees one moment of the other thread."""


class _Bounded(AsyncConnection[DictRow]):
    """A connection on which every wait for Postgres has a deadline; past it, it is lost and `on_silence` is called.

    psycopg has none. A server that was replaced, or a network that forgot the connection, would keep a run for ever,
    and cancelling it would wait for an answer on the dead connection.
    """

    deadline_s: float | None = DATABASE_DEADLINE_S
    on_silence: Callable[[], None] | None = None

    async def wait(self, *arguments: Any, **options: Any) -> Any:
        """As psycopg's, within the deadline. Raises: psycopg.OperationalError."""
        if self.deadline_s is None:
            return await super().wait(*arguments, **options)
        timer = asyncio.get_running_loop().call_later(self.deadline_s, self._give_up)
        try:
            return await super().wait(*arguments, **options)
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        log.warning("Postgres has not answered for %.0f s; all connections are replaced", self.deadline_s)
        # A socket that was shut down is readable at once: whoever waits for it learns that it is lost.
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as ours:
            ours.shutdown(socket.SHUT_RDWR)
        if self.on_silence is not None:
            self.on_silence()


async def open_pool(dsn: str, size: int, waiting_max: int = 0) -> Pool:
    """A pool for LangGraph's tables; with `waiting_max`, no more than that many wait for it. Raises: Unavailable.

    Its transactions are bounded by the server: a runner that is frozen amid a checkpoint holds the row of its fence,
    for which its successor waits.
    """

    replacing: set[asyncio.Task[None]] = set()

    def replace_all() -> None:
        # What is dead with one of them would cost its next user as long.
        task = asyncio.get_running_loop().create_task(pool.drain())
        replacing.add(task)
        task.add_done_callback(replacing.discard)

    async def configure(connection: _Bounded) -> None:
        connection.on_silence = replace_all
        await _bound_transactions(connection)

    pool = cast(
        "Pool",
        AsyncConnectionPool(
            dsn, connection_class=_Bounded, min_size=1, max_size=size, open=False, timeout=DATABASE_DEADLINE_S,
            max_waiting=waiting_max, configure=configure,
            kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row, **KEEPALIVES},
        ),
    )  # fmt: skip
    try:
        await pool.open(wait=True, timeout=DATABASE_DEADLINE_S)
    except psycopg.Error as error:
        raise Unreachable(f"Postgres does not answer: {error}") from error
    return pool


async def _bound_transactions(connection: AsyncConnection[Any], bound_s: float = TRANSACTION_DEADLINE_S) -> None:
    """Postgres before version 17 has no such bound: there a frozen runner holds its run until its connection ends."""
    await connection.execute(
        "SELECT set_config(name, %s, false) FROM pg_settings WHERE name='transaction_timeout'", (f"{bound_s:.0f}s",)
    )


@contextlib.asynccontextmanager
async def setting_up(pool: Pool) -> AsyncIterator[AsyncConnection[DictRow]]:
    """A connection that alone creates tables. Raises: Unavailable.

    The lock is polled: LangGraph creates indexes concurrently, which waits for every statement that runs, so a process
    that waited inside `pg_advisory_lock` would deadlock with the one that it waits for.
    """
    async with pool.connection() as connection:
        try:
            async with asyncio.timeout(SETUP_DEADLINE_S):
                while not await _try_lock(connection):  # noqa: ASYNC110 (a lock of Postgres tells nobody that it is free)
                    await asyncio.sleep(SETUP_POLL_S)
        except TimeoutError as error:
            raise Unavailable(f"another process sets tables up for more than {SETUP_DEADLINE_S:.0f} s") from error
        await _bound_transactions(connection, 0)
        bounded = cast("_Bounded", connection)
        bounded.deadline_s = None
        try:
            yield connection
        finally:
            bounded.deadline_s = DATABASE_DEADLINE_S
            await connection.execute("SELECT pg_advisory_unlock(%s)", (SETUP_LOCK,))
            await _bound_transactions(connection)


async def _try_lock(connection: AsyncConnection[DictRow]) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s) AS got", (SETUP_LOCK,))
    row = await cursor.fetchone()
    return row is not None and bool(row["got"])


async def set_up(pool: Pool) -> None:
    """Create the tables of the checkpoints; one process at a time. Raises: Unavailable."""
    async with setting_up(pool) as connection:
        await AsyncPostgresSaver(connection).setup()


class FencedSaver(AsyncPostgresSaver):
    """The checkpointer of one run (`fence` its lease), or of a question that only reads (`fence` None).

    A graph can get hold of it, so whatever thread it names, its own is read and written, and nothing is deleted.

    What a run writes waits for `said`, the log's word that it holds what the graph has said so far: an attempt that
    goes on from a checkpoint does not say that again.

    And it is repeated through an outage of Postgres: a write is an upsert that holds the fence. `on_lost` is called
    when it was given up. LangGraph writes in the background, each checkpoint behind the one before, and would go on
    with the graph to its end before it told that none was stored since.
    """

    def __init__(
        self, database: Pool | AsyncConnection[DictRow], scope: Scope, thread_id: str, fence: int | None,
        said: Callable[[], Awaitable[None]] | None = None, on_lost: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(database)
        self._key, self._plain, self._fence = thread_key(scope, thread_id), thread_id, fence
        self._said, self._on_lost = said, on_lost
        # A connection of somebody else's may be in a transaction, which is lost with it.
        self._pool = database if isinstance(database, AsyncConnectionPool) else None

    async def _write(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, as often as it takes. Raises: Fenced, Unavailable after `CHECKPOINT_OUTAGE_S`."""
        if self._said is not None:
            await self._said()
        end, waits = time.monotonic() + CHECKPOINT_OUTAGE_S, False
        while True:
            try:
                with failures(self._fence):
                    return await write()
            except Unavailable as error:
                if self._pool is None or self._pool.closed or time.monotonic() > end:
                    self._lose()
                    raise
                if not waits:
                    log.warning("a checkpoint of thread %s waits: %s", self._plain, error.message)
                waits = True
                await asyncio.sleep(RETRY_WAIT_S)
            except Fenced:
                self._lose()
                raise

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read. A pool hands out connections that have ended since their last use; one of them costs no run an attempt.

        Raises: Unavailable.
        """
        try:
            with failures(self._fence):
                return await read()
        except Unavailable as error:
            if self._pool is None or self._pool.closed or isinstance(error.__cause__, PoolTimeout):
                raise
        with failures(self._fence):
            await self._pool.check()
            return await read()

    def _lose(self) -> None:
        if self._on_lost is not None:
            self._on_lost()

    def _stored(self, config: RunnableConfig) -> RunnableConfig:
        configurable = {**config.get("configurable", {}), "thread_id": self._key}
        return {**config, "configurable": configurable}

    def _shown(self, config: RunnableConfig) -> RunnableConfig:
        return {**config, "configurable": {**config.get("configurable", {}), "thread_id": self._plain}}

    @contextlib.asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        async with super()._cursor(pipeline=pipeline) as cursor:
            # LangGraph writes in pipelines and reads without: the check shares the write's implicit transaction.
            if pipeline and self._fence is not None:
                await cursor.execute(CHECK, (self._key, self._fence))
            yield cursor

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The newest checkpoint, or the named one."""
        get = super().aget_tuple
        found = await self._read(lambda: get(self._stored(config)))
        return None if found is None else self._shown_tuple(found)

    def _shown_tuple(self, found: CheckpointTuple) -> CheckpointTuple:
        parent = found.parent_config
        return found._replace(
            config=self._shown(found.config), parent_config=None if parent is None else self._shown(parent)
        )

    async def alist(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None, limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:  # fmt: skip
        """Checkpoints of this thread, newest first. Without `config`, LangGraph means those of all threads."""
        stored = self._stored(config or {})
        async for found in super().alist(stored, filter=filter, before=before, limit=limit):
            yield self._shown_tuple(found)

    async def adelete_thread(self, thread_id: str) -> None:
        """Refused: a graph has its own thread's checkpoints, and what lies in the log goes with them."""
        raise NotImplementedError("checkpoints are deleted with their thread, by the API")

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Refused, as a deletion."""
        raise NotImplementedError("checkpoints are pruned by the API: POST /threads/prune")

    async def aput(self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        """Store a checkpoint. Raises: Fenced, Unavailable, Unserialisable."""
        put = super().aput
        with self._named(checkpoint["channel_values"].items()):
            written = await self._write(lambda: put(self._stored(config), checkpoint, metadata, new_versions))
        return self._shown(written)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store a task's writes. Raises: Fenced, Unavailable, Unserialisable."""
        put, finished = super().aput_writes, _of_finished(writes)
        if finished:
            with self._named(finished):
                await self._write(lambda: put(self._stored(config), finished, task_id, task_path))

    @contextlib.contextmanager
    def _named(self, parts: Iterable[tuple[str | int, Any]]) -> Iterator[None]:
        """Name the key that LangGraph's serialiser refuses: it tells only the type."""
        try:
            yield
        except (TypeError, ValueError) as error:
            path: Path = ()
            reason, left = str(error), parts
            while len(path) <= PATH_STEPS_MAX:
                found = next((part for part in left if self._refusal(part[1])), None)
                if found is None:
                    break
                path, reason = (*path, found[0]), self._refusal(found[1])
                left = _parts_of(found[1])
            if not path:
                raise
            raise Unserialisable(f"cannot be checkpointed: {reason}", path) from error

    def _refusal(self, value: Any) -> str:
        try:
            self.serde.dumps_typed(value)
        except (TypeError, ValueError) as error:
            return str(error) or type(error).__name__
        return ""

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        """What channels that store their changes alone are put together from."""
        get = super().aget_delta_channel_history
        return await self._read(lambda: get(config=self._stored(config), channels=channels))

    async def null_writes(self) -> tuple[str | None, int]:
        """The root checkpoint's id and how many writes of no task (those of commands) it has."""
        found = await self.aget_tuple({"configurable": {"thread_id": self._plain, "checkpoint_ns": ""}})
        if found is None:
            return None, 0
        count = sum(1 for task_id, _, _ in found.pending_writes or () if task_id == NULL_TASK_ID)
        where: dict[str, Any] = found.config.get("configurable", {})
        return where["checkpoint_id"], count


def _of_finished(writes: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """The writes of a task without those that it made before it failed, and none of one that was stopped.

    LangGraph stores them, and takes a task that has any for finished: the next attempt would go on without what the
    task had still to write, such as where its conditional edge leads, and a run could end there. Source:
    langgraph.pregel._task_status, "What these rules cannot see".
    """
    error = next((value for channel, value in writes if channel == ERROR), None)
    if error is None:
        return writes
    if isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError)):
        return ()
    return [write for write in writes if write[0] in WRITES_IDX_MAP or write[0] == ERROR_SOURCE_NODE]


def _parts_of(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return [(str(key), part) for key, part in value.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    names = getattr(value, "__dict__", None) or dict.fromkeys(getattr(value, "__slots__", ()))
    return [(name, getattr(value, name, None)) for name in names]


@contextlib.contextmanager
def failures(fence: int | None) -> Iterator[None]:
    """Name what the database says: a failed fence check shows as a division by zero."""
    try:
        yield
    except (psycopg.errors.DivisionByZero, psycopg.errors.PipelineAborted) as error:
        raise Fenced(f"the checkpoints belong to a later lease than {fence}", 0) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        raise Unreachable(f"Postgres does not take checkpoints: {error}") from error
    except psycopg.Error as error:
        # A server that is read-only for a while is no fault of the graph.
        if (error.sqlstate or "")[:2] not in OUTAGE_CLASSES:
            raise
        raise Unreachable(f"Postgres does not take checkpoints: {error}") from error


async def copy_checkpoints(connection: AsyncConnection[DictRow], scope: Scope, source_id: str, thread_id: str) -> None:
    """Give a thread that has none the checkpoints of another."""
    keys = {"from": thread_key(scope, source_id), "to": thread_key(scope, thread_id), "plain": thread_id}
    await connection.execute(COPY, keys)
