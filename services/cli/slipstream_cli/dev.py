"""`slipstream dev`: NATS, Postgres, API, runner and projector, started, watched and stopped together."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any, Final

import httpx
import msgspec
from watchfiles import DefaultFilter, awatch

from slipstream_cli.operate import prepare
from slipstream_cli.processes import Child, say
from slipstream_nats.embedded import NatsProcess, start_nats
from slipstream_postgres.embedded import PostgresProcess, start_postgres
from slipstream_schemas.errors import Rejected, SlipstreamError, Unavailable
from slipstream_schemas.settings import log_to_stderr, settings_from_environment
from slipstream_schemas.user_code import config_file

READY_DEADLINE_S: Final = 60.0
POLL_S: Final = 0.02
STORE_CHECK_S: Final = 0.5
RESTART_WAITS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
DEV_DRAIN_GRACE_S: Final = "1"
METRICS_PORT: Final = "SLIPSTREAM_METRICS_PORT"


class DevOptions(msgspec.Struct, frozen=True):
    """What the command line says."""

    config: Path
    host: str
    port: int
    state_dir: Path
    runners: int = 1
    reload: bool = True


def lock(state_dir: Path) -> IO[str]:
    """Own the state folder: nats-server has no lock of its own. Raises: Rejected."""
    state_dir.mkdir(parents=True, exist_ok=True)
    file = (state_dir / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise Rejected(
            f"the state folder {state_dir} is in use by process {owner}. Stop it, or choose another --state-dir"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def check_port(host: str, port: int) -> None:
    """Raises: Rejected when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Rejected(f"port {port} on {host} is taken ({error.strerror}). Choose another with --port") from error


class Stores(msgspec.Struct):
    """The embedded servers, those that we run."""

    nats: NatsProcess | None
    postgres: PostgresProcess | None
    nats_url: str
    database_url: str

    def dead(self) -> str | None:
        """The name of one that has died."""
        if self.nats is not None and self.nats.process.poll() is not None:
            return "NATS"
        if self.postgres is not None and self.postgres.process.poll() is not None:
            return "Postgres"
        return None

    def stop(self) -> None:
        """Stop them, Postgres last."""
        if self.nats is not None:
            self.nats.stop()
        if self.postgres is not None:
            self.postgres.stop()


def start_stores(state_dir: Path) -> Stores:
    """Start what NATS_URL and DATABASE_URL do not name. Raises: Unavailable."""
    nats_url, database_url = os.environ.get("NATS_URL", ""), os.environ.get("DATABASE_URL", "")
    if not database_url and not (state_dir / "pg").exists():
        say("slipstream", "first start: making a Postgres in the state folder")
    # One after the other: both are up in a tenth of a second, and the kernel ties them to this very thread.
    nats = None if nats_url else start_nats(state_dir)
    try:
        postgres = None if database_url else start_postgres(state_dir)
    except SlipstreamError:
        if nats is not None:
            nats.stop()
        raise
    return Stores(nats, postgres, nats.url if nats else nats_url, postgres.dsn if postgres else database_url)


class Dev:
    """The supervisor."""

    def __init__(self, options: DevOptions, stores: Stores) -> None:
        self._options, self._stores = options, stores
        inherited = {name: value for name, value in os.environ.items() if name != "SLIPSTREAM_CRASHPOINT"}
        env = {
            **inherited, "NATS_URL": stores.nats_url, "DATABASE_URL": stores.database_url,
            "SLIPSTREAM_CONFIG": str(options.config.resolve()), "SLIPSTREAM_HOST": options.host,
            "SLIPSTREAM_PORT": str(options.port),
        }  # fmt: skip
        env.setdefault("SLIPSTREAM_DRAIN_GRACE_S", DEV_DRAIN_GRACE_S)
        ports = int(env.get(METRICS_PORT) or 0)
        self._runners = [
            Child(
                "runner" if options.runners == 1 else f"runner-{n}", "slipstream_runner.main", _with_port(env, ports, n)
            )
            for n in range(options.runners)
        ]
        self._services = [
            Child("projector", "slipstream_projector.main", _with_port(env, ports, options.runners)), *self._runners,
            Child("api", "slipstream_api.main", env),
        ]  # fmt: skip
        self._stopping = asyncio.Event()
        self._reloading: set[str] = set()
        self._code = 0

    async def run(self, begun: float) -> int:
        """Start everything and watch over it until we are asked to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        tasks: list[asyncio.Task[None]] = []
        try:
            for child in self._services:
                await child.start()
                tasks.append(asyncio.create_task(self._keep(child)))
            tasks.append(asyncio.create_task(self._watch_stores()))
            tasks.append(asyncio.create_task(self._announce(begun)))
            if self._options.reload:
                tasks.append(asyncio.create_task(self._reload()))
            await self._stopping.wait()
        finally:
            self._stopping.set()
            say("slipstream", "stopping")
            for task in tasks:
                task.cancel()
            # The API first, so that nothing new is accepted; the projector last.
            for child in reversed(self._services):
                await child.stop()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._code

    async def _keep(self, child: Child) -> None:
        """Start a service again when it ends; give up when it never comes up."""
        failures = 0
        while True:
            code = await child.wait()
            if self._stopping.is_set():
                return
            if child.name in self._reloading:
                self._reloading.discard(child.name)
            else:
                failures = 0 if child.ready.is_set() else failures + 1
                if failures == len(RESTART_WAITS_S) or (failures and not self._was_up):
                    say("slipstream", f"{child.name} cannot start (exit {code}); its last lines say why")
                    self._code = 1
                    self._stopping.set()
                    return
                say("slipstream", f"{child.name} ended with {code}, starting it again")
                await asyncio.sleep(RESTART_WAITS_S[failures])
            await child.start()

    _was_up = False

    async def _watch_stores(self) -> None:
        while True:
            await asyncio.sleep(STORE_CHECK_S)
            name = self._stores.dead()
            if name is not None:
                say("slipstream", f"{name} has died; its log is in {self._options.state_dir}")
                self._code = 1
                self._stopping.set()
                return

    async def _announce(self, begun: float) -> None:
        """Say when everything serves, and where."""
        host = "127.0.0.1" if self._options.host == "0.0.0.0" else self._options.host
        url = f"http://{host}:{self._options.port}"
        async with httpx.AsyncClient(base_url=url, timeout=2) as client:
            try:
                async with asyncio.timeout(READY_DEADLINE_S):
                    for runner in self._runners:
                        await runner.ready.wait()
                    # Readiness is asked over HTTP; there is nothing to wait on.
                    while not await _is_ready(client):  # noqa: ASYNC110
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                say("slipstream", f"not ready after {READY_DEADLINE_S:.0f} s; the lines above say why")
                return
        self._was_up = True
        say("slipstream", f"ready in {time.monotonic() - begun:.1f} s")
        say("slipstream", f"  API       {url}")
        say("slipstream", f"  docs      {url}/docs")
        say("slipstream", f"  NATS      {self._stores.nats_url}")
        say("slipstream", f"  Postgres  {self._stores.database_url}")

    async def _reload(self) -> None:
        """Restart what holds user code when it changes; runs that are under way are handed over, streams come back."""
        async for changed in self._changes():
            say("slipstream", f"{changed} changed, reloading the graphs")
            holders = [*self._runners, *(self._services[-1:] if _is_in_the_api(self._options.config) else ())]
            for holder in holders:
                process = holder.process
                if process is not None and process.returncode is None:
                    self._reloading.add(holder.name)
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()

    async def _changes(self) -> AsyncIterator[str]:
        root = self._options.config.resolve().parent
        state_dir = str(self._options.state_dir.resolve())
        async for changes in awatch(root, watch_filter=DefaultFilter(ignore_paths=[state_dir]), step=100):
            seen = sorted(path for _, path in changes if path.endswith((".py", ".json", ".env")))
            if seen:
                yield seen[0].removeprefix(f"{root}{os.sep}")


def _with_port(env: dict[str, str], first: int, number: int) -> dict[str, str]:
    """The processes share this machine: from the port that is set, each has the next one, the projector the last."""
    return {**env, METRICS_PORT: str(first + number)} if first else env


def _is_in_the_api(config: Path) -> bool:
    """Whether the API has user code, too: custom routes or auth handlers."""
    try:
        found = msgspec.json.decode(config.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError):
        return False
    http = found.get("http")
    return "auth" in found or (isinstance(http, dict) and "app" in http)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        answer = await client.get("/ready")
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and bool(answer.json().get("graphs"))


def run_dev(options: DevOptions) -> int:
    """`slipstream dev`. Raises: Rejected, Unavailable."""
    begun = time.monotonic()
    settings = settings_from_environment()
    log_to_stderr("warning", settings.log_format)
    options = msgspec.structs.replace(options, config=config_file(options.config))
    if not options.config.exists():
        raise Rejected(f'{options.config} does not exist. Write one: {{"graphs": {{"agent": "./agent.py:graph"}}}}')
    check_port(options.host, options.port)
    with lock(options.state_dir):
        stores = start_stores(options.state_dir)
        try:
            found = msgspec.structs.replace(settings, nats_url=stores.nats_url, database_url=stores.database_url)
            asyncio.run(prepare(found))
            return asyncio.run(Dev(options, stores).run(begun))
        except Unavailable as error:
            say("slipstream", error.message)
            return 1
        finally:
            stores.stop()
            say("slipstream", "stopped")
