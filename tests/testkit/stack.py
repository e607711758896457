"""Slipstream as processes: APIs, runners and a projector on one region of a real NATS and one database.

Nothing is started by itself: a test says what runs, and may kill, pause and add. Readiness is waited for in parallel,
because two cores start five interpreters. `shared` in one line:

    with Stack(nats_url, dsn, region="t1", root=folder) as stack:
        stack.start(apis=2, runners=1)
        client = get_client(url=stack.url)
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from slipstream_nats.connection import NOT_PERMITTED, connect
from slipstream_nats.provision import StreamSettings
from slipstream_postgres.migrate import ensure_schema
from testkit import permitted
from testkit.cluster import READY_DEADLINE_S, fitting, provisioned
from testkit.servers import fresh_database
from testkit.service import Service

REPOSITORY: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = REPOSITORY / "examples" / "langgraph.json"
HOST: Final = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def prepare(nats_url: str, dsn: str, region: str, settings: StreamSettings | None = None) -> None:
    """Streams and tables, as an operator makes them before the first start; replicated on a cluster. Idempotent."""
    connection = await connect(nats_url, "testkit", READY_DEADLINE_S)
    try:
        await provisioned(connection, region, fitting(nats_url, settings))
    finally:
        await connection.close()
    await ensure_schema(dsn)


class Stack:
    """The processes of one region. Leaving the `with` block kills what is left of them."""

    def __init__(self, nats_url: str, dsn: str, region: str, root: Path, config: Path = EXAMPLES) -> None:
        self.nats_url, self.dsn, self.region, self.root, self.config = nats_url, dsn, region, root, config
        self.services: list[Service] = []
        self.settings: dict[str, str] = {}
        self.balancer: Service | None = None
        root.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Stack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def apis(self) -> list[Service]:
        """The APIs that live."""
        return [service for service in self.services if service.name.startswith("api") and service.is_alive]

    @property
    def runners(self) -> list[Service]:
        """The runners that live."""
        return [service for service in self.services if service.name.startswith("runner") and service.is_alive]

    @property
    def url(self) -> str:
        """The address of the balancer, or else of the first living API."""
        return (self.balancer or self.apis[0]).url or ""

    def prepare(self, settings: StreamSettings | None = None) -> None:
        """Streams and tables; call it outside of an event loop."""
        asyncio.run(prepare(self.nats_url, self.dsn, self.region, settings))

    def start(self, apis: int = 1, runners: int = 1, projectors: int = 1, **settings: str) -> "Stack":
        """Start that many of each and wait until all of them serve."""
        started = [self.spawn_api(**settings) for _ in range(apis)]
        started += [self.spawn_runner(**settings) for _ in range(runners)]
        started += [self.spawn_projector(**settings) for _ in range(projectors)]
        for service in started:
            service.wait_ready()
        return self

    def spawn_api(self, module: str = "slipstream_api.main", **settings: str) -> Service:
        """Start an API without waiting. Settings are environment names in lower case: `slipstream_port="80"`."""
        port = settings.get("slipstream_port", str(free_port()))
        settings = {"slipstream_host": HOST, "slipstream_port": port, **settings}
        return self._spawn("api", settings, f"http://{HOST}:{port}", module)

    def start_shared(self) -> "Stack":
        """Start one of each for many tests; `BALANCED_APIS=2` puts a balancer before so many APIs."""
        apis = int(os.environ.get("BALANCED_APIS", "1"))
        self.start(apis)
        return self.balance() if apis > 1 else self

    def balance(self) -> "Stack":
        """Put a balancer before the living APIs, and wait until it serves."""
        targets = " ".join(api.url or "" for api in self.apis)
        port = str(free_port())
        settings = {"slipstream_host": HOST, "slipstream_port": port, "balancer_targets": targets}
        self.balancer = self._spawn("balancer", settings, f"http://{HOST}:{port}", "testkit.balancer")
        self.balancer.wait_ready()
        return self

    def spawn_runner(self, **settings: str) -> Service:
        """Start a runner without waiting."""
        return self._spawn("runner", settings)

    def spawn_projector(self, **settings: str) -> Service:
        """Start a projector without waiting."""
        return self._spawn("projector", settings)

    def close(self) -> None:
        """Kill every process: what they hold is thrown away with the test."""
        for service in self.services:
            service.kill()

    def logs(self, offsets: dict[str, int] | None = None) -> str:
        """The end of every process's log, for a failed test."""
        parts = [
            f"--- {service.name} (pid {service.pid}, exit {service.process.poll()})\n"
            + service.log_tail((offsets or {}).get(service.name, 0))
            for service in self.services
        ]
        return "\n".join(parts)

    def refusals(self) -> list[str]:
        """What NATS has refused the services, whose users may do no more than they need.

        Not an answer that came too late: who was paused has lost the leave to give it.
        """
        lines = [line for service in self.services for line in service.log_text().splitlines() if NOT_PERMITTED in line]
        return [line for line in lines if 'publish to "_inbox_' not in line]

    def log_offsets(self) -> dict[str, int]:
        """How long each log is now."""
        return {service.name: service.log.stat().st_size for service in self.services}

    def _spawn(self, kind: str, settings: dict[str, str], url: str | None = None, module: str = "") -> Service:
        name = f"{kind}-{sum(service.name.startswith(kind) for service in self.services)}"
        service = Service(
            name, module or f"slipstream_{kind}.main", self._environment(kind, settings), self.root / f"{name}.log", url
        )
        self.services.append(service)
        return service

    def _environment(self, kind: str, settings: dict[str, str]) -> dict[str, str]:
        """The environment of a process: the caller's own SLIPSTREAM_* names stay out of it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLIPSTREAM_")}
        own = {
            "NATS_URL": permitted.url_of(self.nats_url, kind, self.region),
            "DATABASE_URL": self.dsn,
            "SLIPSTREAM_REGION": self.region,
            "SLIPSTREAM_CONFIG": str(self.config),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONUNBUFFERED": "1",
        }
        chosen = {name.upper(): value for name, value in {**self.settings, **settings}.items()}
        return {**inherited, **own, **chosen}


@contextmanager
def fresh_stack(nats_url: str, server_dsn: str, root: Path, config: Path = EXAMPLES) -> Generator[Stack]:
    """A stack on a region and a database of its own, prepared, with nothing started; for the tests of a module."""
    with fresh_database(server_dsn) as dsn, Stack(nats_url, dsn, f"f{secrets.token_hex(5)}", root, config) as made:
        made.prepare()
        yield made
