"""Servers of a bench's own, and a stack on them; with the bench all of it goes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from slipstream_nats.embedded import NatsProcess, start_nats
from slipstream_postgres.embedded import PostgresProcess, start_postgres
from testkit.stack import EXAMPLES, Stack


class Site(NamedTuple):
    """A prepared stack without services, and the servers that it is on."""

    stack: Stack
    nats: NatsProcess
    postgres: PostgresProcess


@contextmanager
def site(config: Path = EXAMPLES) -> Iterator[Site]:
    """Start the servers, and stop all at the end."""
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as scratch:
        root = Path(scratch)
        nats, postgres = start_nats(root), start_postgres(root)
        try:
            with Stack(nats.url, postgres.dsn, "bench", root / "stack", config) as stack:
                stack.prepare()
                yield Site(stack, nats, postgres)
        finally:
            nats.stop()
            postgres.stop()
