"""Runs and streams under faults: what is asked for until it is accepted, followed until it has ended, and then checked.

A client of this load behaves as a careful one: a request that failed is repeated with its `Idempotency-Key`, at any API
that answers, and a stream that broke is resumed behind the last frame that was seen.
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import httpx

from slipstream_nats.connection import connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.publisher import open_publisher
from slipstream_postgres import positions
from slipstream_postgres.pool import open_database
from slipstream_projector.rebuild import checksum, rebuild
from slipstream_schemas.errors import SlipstreamError
from testkit.client import Client, Frame, frames
from testkit.stack import Stack
from testkit.wait import until

ACCEPT_DEADLINE_S: Final = 120.0
END_DEADLINE_S: Final = 180.0
PAUSE_S: Final = 0.05
READ_DEADLINE_S: Final = 15.0
"""Three keepalives are missing: the API that sends this stream is frozen, or cut off."""

Urls = Callable[[], Sequence[str]]


class Thread:
    """One thread with its runs and one stream, which outlives whatever happens to the APIs."""

    def __init__(self, urls: Urls, chance: random.Random, steps: int, delay_s: float) -> None:
        self.thread_id = str(uuid.uuid4())
        self.run_ids: list[str] = []
        self.frames: list[Frame] = []
        self.resumes = 0
        self.steps = steps
        self._urls, self._chance, self._delay_s = urls, chance, delay_s
        self._moved = time.monotonic()

    @property
    def url(self) -> str:
        """One of the APIs that are said to live."""
        return self._chance.choice(self._urls())

    async def start(self) -> None:
        """Ask for a run until it is accepted; a repeat is the same run."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        body = {"assistant_id": "counter", "input": {"count": 0, "steps": self.steps, "delay_s": self._delay_s},
                "if_not_exists": "create", "multitask_strategy": "enqueue"}  # fmt: skip
        async with asyncio.timeout(ACCEPT_DEADLINE_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    async with Client(self.url) as client:
                        answer = await client.http.post(
                            f"/threads/{self.thread_id}/runs", json=body, headers=key, timeout=READ_DEADLINE_S
                        )
                    if answer.status_code == 200:
                        self.run_ids.append(answer.json()["run_id"])
                        return
                    assert answer.status_code == 503, f"{answer.status_code} {answer.text}"
                await asyncio.sleep(PAUSE_S)

    async def follow(self, ends: int) -> None:
        """Follow until so many runs have ended. Raises: AssertionError, naming where it stands, past the deadline."""
        try:
            async with asyncio.timeout(END_DEADLINE_S):
                while sum(frame.ends_root for frame in self.frames) < ends:
                    with contextlib.suppress(httpx.TransportError):
                        await self._read(ends)
                    self.resumes += 1
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            quiet_s = time.monotonic() - self._moved
            last = self.frames[-1] if self.frames else None
            raise AssertionError(
                f"thread {self.thread_id}, runs {self.run_ids}: {len(self.frames)} frames, quiet for {quiet_s:.0f} s "
                f"behind {last}"
            ) from None

    async def _read(self, ends: int) -> None:
        since = self.frames[-1].seq if self.frames else 0
        async with Client(self.url) as client:
            client.http.timeout = httpx.Timeout(READ_DEADLINE_S)
            answers = client.http.stream(
                "POST", f"/threads/{self.thread_id}/stream/events", json={"channels": CHANNELS, "since": since}
            )
            async with answers as answer:
                if answer.status_code != 200:
                    text = (await answer.aread()).decode()
                    assert answer.status_code == 503, f"{answer.status_code} {text}"
                    return
                async for frame in frames_of(answer):
                    self.frames.append(frame)
                    self._moved = time.monotonic()
                    if frame.ends_root and sum(seen.ends_root for seen in self.frames) >= ends:
                        return

    async def check(self) -> None:
        """What was seen is the log, whole, and each run is done. Raises: AssertionError."""
        async with asyncio.timeout(END_DEADLINE_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    return await self._check()
                await asyncio.sleep(PAUSE_S)

    async def _check(self) -> None:
        seqs = [frame.seq for frame in self.frames]
        assert seqs == sorted(set(seqs)), f"{self.thread_id}: a frame came twice or out of order"
        runs = len(self.run_ids)
        async with Client(self.url) as client:
            whole = await client.run_events(self.thread_id, ends=runs)
            assert self.frames == whole, f"{self.thread_id}: {len(self.frames)} frames of {len(whole)}"
            self._check_attempts()
            for run_id in self.run_ids:
                await until(lambda run_id=run_id: self._is_over(client, run_id), END_DEADLINE_S)  # type: ignore[misc]
            thread = await until(lambda: self._row(client), END_DEADLINE_S)
            assert (thread["status"], thread["values"]["count"]) == ("idle", self.steps), thread
        assert sum(frame.ends_root for frame in self.frames) == runs

    @property
    def attempts(self) -> int:
        """The most attempts that one of its runs took, as far as it was seen."""
        ids = [frame.body["event_id"].split(":") for frame in self.frames]
        return max(int(each[1]) for each in ids if each[1].isdigit())

    def _check_attempts(self) -> None:
        """One attempt speaks at a time, and no step of the counter is missing."""
        for run_id in self.run_ids:
            own = [body for body in (frame.body for frame in self.frames) if body["event_id"].startswith(run_id)]
            attempts = [int(body["event_id"].split(":")[1]) for body in own]
            assert attempts == sorted(attempts), f"{run_id}: attempts speak at once: {attempts}"
            values = [body for body in own if body["method"] == "values" and "count" in body["params"]["data"]]
            shown = [(int(body["event_id"].split(":")[1]), body["params"]["data"]["count"]) for body in values]
            # The next attempt begins at the last checkpoint, which may lie before what was seen, and tells first what
            # it found there: the state before the run, when only the run's input was stored.
            begun = [at for at in range(1, len(shown)) if shown[at][0] > shown[at - 1][0]]
            steps = [each for at, each in enumerate(shown) if at not in begun]
            assert steps == sorted(steps), f"{run_id}: {shown}"
            assert set(range(self.steps + 1)) <= {0, *(count for _, count in shown)}, f"{run_id}: {shown}"

    async def _row(self, client: Client) -> dict[str, Any]:
        answer = await client.http.get(f"/threads/{self.thread_id}")
        return {} if answer.status_code == 503 else dict(answer.raise_for_status().json())

    async def _is_over(self, client: Client, run_id: str) -> bool:
        answer = await client.http.get(f"/threads/{self.thread_id}/runs/{run_id}")
        if answer.status_code == 503:
            return False
        status = answer.raise_for_status().json()["status"]
        assert status in ("success", "running", "pending"), f"run {run_id} is {status}"
        return bool(status == "success")


CHANNELS: Final = ["lifecycle", "values", "updates", "custom", "tasks", "checkpoints", "input"]


async def frames_of(answer: httpx.Response) -> AsyncIterator[Frame]:
    """The events of a stream, comments left out."""
    async for frame in frames(answer.aiter_bytes()):
        if frame.event != ":":
            yield frame


class Load:
    """Threads, each with a stream and some runs: so many, queued at once, or one after the other up to `until`."""

    def __init__(
        self, urls: Urls, chance: random.Random, threads: int, runs: int = 1, steps: int = 12, delay_s: float = 0.1,
        until: asyncio.Event | None = None,
    ) -> None:  # fmt: skip
        self.threads = [Thread(urls, chance, steps, delay_s) for _ in range(threads)]
        self._runs, self._until = runs, until
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, *, is_running: bool = True) -> None:
        """Start the runs and the streams; with `is_running`, return once each thread has shown something."""
        self.tasks = [asyncio.create_task(self._one(thread)) for thread in self.threads]
        if is_running:
            await until(self._all_speak, ACCEPT_DEADLINE_S)

    def _all_speak(self) -> bool:
        for task in self.tasks:
            if task.done():
                task.result()
        return all(len(thread.frames) > 2 for thread in self.threads)

    async def _one(self, thread: Thread) -> None:
        if self._until is not None:
            while not self._until.is_set():
                await thread.start()
                await thread.follow(len(thread.run_ids))
            return
        following = asyncio.create_task(thread.follow(self._runs))
        try:
            for _ in range(self._runs):
                await thread.start()
            await following
        finally:
            following.cancel()

    async def finish(self) -> None:
        """Wait until every run has ended, and check each thread. Raises: AssertionError."""
        try:
            await asyncio.gather(*self.tasks)
        finally:
            await self.stop()
        for thread in self.threads:
            await thread.check()

    async def stop(self) -> None:
        """Leave."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def urls_of(stack: Stack) -> Urls:
    """The addresses of the APIs that live; when none does, of all, since one of them may be on its way back."""
    return lambda: [api.url or "" for api in stack.apis or stack.services if api.url]


async def check_rows(stack: Stack) -> None:
    """Stop everything and rebuild the rows: they must be what they were. Raises: AssertionError."""
    connection, database = await connect(stack.nats_url, "check"), await open_database(stack.dsn)
    control = ControlLog(connection, await open_publisher(connection), stack.region)

    async def is_applied() -> bool:
        return await positions.get(database, "control") >= await control.newest_seq(stack.region)

    try:
        await until(is_applied, END_DEADLINE_S, "the projector is at the end of the log")
        for service in stack.services:
            service.kill()
        async with database.connection() as rows:
            assert await rows.fetchval("SELECT count(*) FROM quarantine") == 0, "a record was not applied"
        before = await checksum(database)
        await rebuild(connection, database, stack.region, lambda done, total: None)
        assert await checksum(database) == before, "the rows are not what the log says"
    finally:
        with contextlib.suppress(SlipstreamError):
            await database.close()
        await connection.close()
