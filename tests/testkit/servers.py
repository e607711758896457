"""Real servers for tests: a NATS that can be killed and come back on its port, and databases cut from a template."""

import contextlib
import secrets
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

from slipstream_nats.embedded import STORE_BYTES_MAX, NatsProcess, start_nats
from slipstream_postgres.embedded import PostgresProcess, start_postgres
from testkit import permitted

TEMPLATE = "slipstream_template"


class NatsServer:
    """A nats-server on a port of its own that survives its restarts, with its store."""

    def __init__(self, root: Path, max_file: str = STORE_BYTES_MAX) -> None:
        self._root, self._max_file = root, max_file
        self._process: NatsProcess = start_nats(root, accounts=permitted.accounts(), max_file=max_file)
        self.url = self._process.url
        self._port = urlsplit(self.url).port or -1

    @property
    def pid(self) -> int:
        """The process id, for signals."""
        return self._process.process.pid

    def stop(self) -> None:
        """Stop it as an operator does."""
        self._process.stop()

    def kill(self) -> None:
        """Stop it as a crash does (`kill -9`)."""
        self._process.process.kill()
        self._process.process.wait()

    def start(self) -> None:
        """Bring a stopped server back on the same port with the same store."""
        self._process = start_nats(self._root, self._port, accounts=permitted.accounts(), max_file=self._max_file)

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        self._process.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.process.send_signal(signal.SIGCONT)


class PostgresServer:
    """A Postgres on a port of its own that survives its restarts, with its data; without fsync."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: PostgresProcess = start_postgres(root, 0, fsync=False)
        self.dsn = self._process.dsn
        self._port = urlsplit(self.dsn).port or 0

    def _all(self) -> list[psutil.Process]:
        """The server and its backends, each of which is a session of its own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self._process.process.pid)
            return [server, *server.children(recursive=True)]
        return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """Stop all of it as a crash of the machine does (`kill -9`)."""
        killed = self._all()
        self._signal(signal.SIGKILL)
        self._process.process.wait()
        psutil.wait_procs(killed, timeout=5)

    def start(self) -> None:
        """Bring a stopped server back on the same port with the same data."""
        self._process = start_postgres(self._root, self._port, fsync=False)

    def pause(self) -> None:
        """Freeze it with all its backends (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)


def with_database(dsn: str, name: str) -> str:
    """The address of another database on the same server."""
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


@contextmanager
def fresh_database(server_dsn: str, template: str = TEMPLATE) -> Generator[str]:
    """A database of its own, copied from the migrated template, dropped at the end."""
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY = FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    try:
        yield with_database(server_dsn, name)
    finally:
        with psycopg.connect(server_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def create_database(server_dsn: str, name: str) -> str:
    """An empty database; its address."""
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return with_database(server_dsn, name)
