"""The world: two APIs, two runners, a projector and a broker that may be killed, paused and restarted, and come back.

Processes are started by the thread of the test: the kernel kills them with the thread that started them. Requests and
streams live on an event loop in a thread of its own, so they go on while the state machine draws its next step.

Each runner reaches the broker through a link that may be slowed, and freezes once in its life, at the end of the first
graph that it has executed, before it decides that the run has ended: `at_the_end` says what happens then.
"""

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import httpx

from slipstream_nats.connection import Connection, connect
from slipstream_nats.controllog import ControlLog
from slipstream_nats.provision import StreamSettings
from slipstream_nats.publisher import open_publisher
from slipstream_nats.threadlog import ThreadLog
from slipstream_postgres.pool import Database
from slipstream_schemas.errors import SlipstreamError
from slipstream_schemas.run_state import RunningRun
from slipstream_schemas.subjects import Scope
from testkit import permitted
from testkit.proxy import Proxy
from testkit.servers import NatsServer
from testkit.service import Service
from testkit.stack import HOST, Stack, free_port
from testkit.wait import until_now

Process = Literal["api", "runner", "projector"]
T = TypeVar("T")

COUNTS: Final[dict[Process, int]] = {"api": 2, "runner": 2, "projector": 1}
ACK_WAIT_S: Final = 1.0
SETTINGS: Final = {"slipstream_ack_wait_s": str(ACK_WAIT_S), "slipstream_sweep_s": "1", "slipstream_drain_grace_s": "5"}
REQUEST_DEADLINE_S: Final = 20.0
READY_S: Final = 120.0
CALL_DEADLINE_S: Final = 300.0
AT_THE_END: Final = "stop:executed"
LATE_S: Final = 6.0
"""As long a runner stays at its stop point: another has taken over by then."""
LOOKS_EVERY_S: Final = 0.02
READY: Final = re.compile(r"ready: runner (\S+) has")
GRAPHS: Final = Path(__file__).parents[1] / "testkit" / "graphs" / "langgraph.json"


class World:
    """The stack of one test. Use as a context manager, from the test's own thread."""

    def __init__(self, nats: NatsServer, dsn: str, scratch_dsn: str, region: str, root: Path) -> None:
        self.nats, self.region, self.scope = nats, region, Scope(region)
        self.dsn, self.scratch_dsn = dsn, scratch_dsn
        self._stack = Stack(nats.url, dsn, region, root, GRAPHS)
        self._stack.settings = dict(SETTINGS)
        self._services: dict[tuple[Process, int], Service] = {}
        self._paused: set[tuple[Process, int]] = set()
        self._doomed: set[tuple[Process, int]] = set()
        self._ports = [free_port() for _ in range(COUNTS["api"])]
        self._links = [Proxy(permitted.url_of(nats.url, "runner", region)) for _ in range(COUNTS["runner"])]
        self.at_the_end: Callable[[str], Awaitable[None]] | None = None
        """Called with the name of a runner that has frozen; it goes on behind that."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clients", daemon=True)
        self.clients: list[httpx.AsyncClient] = []
        self.counts: dict[str, int] = {}
        self.failed: tuple[int, Exception] | None = None
        """The step at which an example has failed, and how."""

    connection: Connection
    control: ControlLog
    threads: ThreadLog
    database: Database
    scratch: Database
    _tending: "list[asyncio.Task[None]]"

    def __enter__(self) -> "World":
        self._thread.start()
        self._stack.prepare(StreamSettings(ack_wait_s=ACK_WAIT_S))
        for link in self._links:
            self.run(link.__aenter__())
        for kind, count in COUNTS.items():
            for index in range(count):
                self._spawn(kind, index)
        self.heal()
        self.run(self._open())
        self._tending = [self.begin(self._tend(index)) for index in range(COUNTS["runner"])]
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for each in list(self._paused):
                self.resume(*each)
            self.run(self._close())
        finally:
            self._stack.close()
            for link in self._links:
                self.run(link.__aexit__(None, None, None))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _open(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self.clients = [
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=REQUEST_DEADLINE_S, limits=limits)
            for port in self._ports
        ]
        self.connection = await connect(self.nats.url, "simulation")
        publisher = await open_publisher(self.connection)
        self.control = ControlLog(self.connection, publisher, self.region)
        self.threads = ThreadLog(self.connection, publisher, self.region)
        self.database, self.scratch = Database(self.dsn), Database(self.scratch_dsn)
        await self.database.open()
        await self.scratch.open()

    async def _close(self) -> None:
        for task in self._tending:
            task.cancel()
        for client in self.clients:
            await client.aclose()
        await self.database.close()
        await self.scratch.close()
        await self.connection.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something on the loop of the clients. Raises: what it raises, TimeoutError."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_DEADLINE_S)

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start something on the loop of the clients."""

        async def start() -> "asyncio.Task[T]":
            return asyncio.create_task(work)

        return self.run(start())

    def _spawn(self, kind: Process, index: int, crashpoint: str = "") -> None:
        match kind:
            case "api":
                service = self._stack.spawn_api(
                    slipstream_port=str(self._ports[index]), slipstream_crashpoint=crashpoint
                )
            case "runner":
                url = self._links[index].url
                service = self._stack.spawn_runner(nats_url=url, slipstream_crashpoint=crashpoint or AT_THE_END)
            case "projector":
                service = self._stack.spawn_projector()
        self._services[kind, index] = service

    def crash(self, kind: Process, index: int, crashpoint: str = "") -> None:
        """Kill -9, and start again without waiting for it; with a crashpoint it kills or stops itself there."""
        self._services[kind, index].kill()
        self._paused.discard((kind, index))
        self._doomed.discard((kind, index))
        self._spawn(kind, index, crashpoint)
        if crashpoint:
            self._doomed.add((kind, index))

    def revive(self) -> None:
        """Start again what came to its crashpoint."""
        for each in [each for each in self._doomed if not self._services[each].is_alive]:
            self.count("crashpoints reached")
            self.crash(*each)

    def pause(self, kind: Process, index: int) -> None:
        """Freeze a process."""
        self._paused.add((kind, index))
        self._services[kind, index].pause()

    def resume(self, kind: Process, index: int) -> None:
        """Let a frozen process go on."""
        if (kind, index) in self._paused:
            self._paused.discard((kind, index))
            self._services[kind, index].resume()

    @contextlib.contextmanager
    def slow(self, index: int, latency_s: float) -> Iterator[None]:
        """Whatever a runner and the broker say to each other takes this long."""
        self._links[index].latency_s = latency_s
        try:
            yield
        finally:
            self._links[index].latency_s = 0.0

    async def _tend(self, index: int) -> None:
        """Meet a runner that has frozen by itself."""
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            service = self._services["runner", index]
            if not service.is_stopped or ("runner", index) in self._paused:
                continue
            if ("runner", index) in self._doomed:
                self.count("stop points reached")
                await asyncio.sleep(LATE_S)
                self._doomed.discard(("runner", index))
            else:
                self.count("stops at the end of a graph")
                if self.at_the_end is not None:
                    await self.at_the_end(_name_of(service))
            if service.is_alive and ("runner", index) not in self._paused:
                service.resume()

    async def running(self, thread_id: str) -> RunningRun | None:
        """The run that a thread executes. Raises: Unavailable."""
        state = (await self.control.head(self.scope, thread_id)).state
        return None if state is None else state.running

    def runner(self, holder: str | None) -> int | None:
        """The index of the living runner of this name."""
        found = [index for (kind, index), service in self._services.items()
                 if kind == "runner" and service.is_alive and _name_of(service) == holder]  # fmt: skip
        return found[0] if found else None

    def wait_for(self, look: Callable[[], Coroutine[Any, Any, T]], deadline_s: float) -> T | None:
        """The first truthy answer, None past the deadline. Meanwhile, what comes to its crashpoint is started again."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            with contextlib.suppress(SlipstreamError):
                if found := self.run(look()):
                    return found
            self.revive()
            time.sleep(LOOKS_EVERY_S)
        return None

    def restart_broker(self) -> None:
        """Kill -9 of the broker, and its return."""
        self.nats.kill()
        self.nats.start()

    def heal(self) -> None:
        """Everything lives and serves, and nothing waits for its crashpoint."""
        for each in list(self._paused):
            self.resume(*each)
        self.revive()
        for each in list(self._doomed):
            self.crash(*each)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until everything serves. Raises: AssertionError, also for what has ended by itself."""
        for (kind, index), service in self._services.items():
            if (kind, index) in self._doomed:
                until_now(lambda each=service: not each.is_alive or each.is_ready(), READY_S)  # type: ignore[misc]
                continue
            if not service.is_alive:
                raise AssertionError(f"{kind} {index} ended by itself with {service.process.returncode}:\n"
                                     f"{service.log_tail()}")  # fmt: skip
            service.wait_ready(READY_S)

    def logs(self) -> str:
        """What the living processes said last."""
        living = self._services.items()
        return "\n".join(f"--- {kind} {index}\n{service.log_tail()}" for (kind, index), service in living)

    def count(self, name: str, by: int = 1) -> None:
        """Count something for the report."""
        self.counts[name] = self.counts.get(name, 0) + by


def _name_of(runner: Service) -> str:
    """What a runner calls itself in leases, empty before it is ready."""
    found = READY.search(runner.log_text())
    return found[1] if found else ""


def environment(name: str, default: int) -> int:
    """A size that the environment sets."""
    return int(os.environ.get(name) or default)
