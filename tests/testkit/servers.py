"""Real servers for tests: a NATS that can be killed and come back on its port, and databases cut from a template."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from slipstream_nats.embedded import NatsProcess, start_nats
from testkit import permitted

TEMPLATE = "slipstream_template"


class NatsServer:
    """A nats-server on a port of its own that survives its restarts, with its store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: NatsProcess = start_nats(root, accounts=permitted.accounts())
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
        self._process = start_nats(self._root, self._port, accounts=permitted.accounts())


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
