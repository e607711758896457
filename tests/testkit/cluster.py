"""Three nats-servers on the configuration that we ship (`infra/nats/cluster.conf`), each of which may be killed.

Its users are those of the tests (`testkit.permitted`), whose permissions know more regions than one.

`kill -9` leaves what a server had handed to the kernel: it says nothing about a power cut.
"""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from slipstream_nats.connection import Connection, connect
from slipstream_nats.embedded import binary
from slipstream_nats.provision import StreamSettings, provision
from slipstream_schemas.errors import Corrupt, Unavailable
from testkit import permitted
from testkit.wait import until

CONFIG: Final = Path(__file__).parents[2] / "infra" / "nats" / "cluster.conf"
INCLUDED: Final = 'include "permissions.conf"\n'
READY_DEADLINE_S: Final = 60.0
NODES: Final = ("nats-1", "nats-2", "nats-3")
REPLICATED: Final = StreamSettings(replicas=len(NODES))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Cluster:
    """Three servers, by name, which keep their ports and stores."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._config = root / "cluster.conf"
        shipped = CONFIG.read_text()
        assert INCLUDED in shipped
        self._config.write_text(shipped.replace(INCLUDED, permitted.accounts()))
        self._ports = free_ports(3 * len(NODES))
        self.urls = {name: f"nats://127.0.0.1:{self._ports[i]}" for i, name in enumerate(NODES)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start()

    @property
    def url(self) -> str:
        """All of them, as a service is told."""
        return ",".join(self.urls.values())

    def start(self, *names: str) -> None:
        """Start those that do not run, of all or of the named; what they promise comes later (`provisioned`)."""
        for name in names or NODES:
            if name not in self._processes or self._processes[name].poll() is not None:
                self._processes[name] = self._spawn(name)

    def _spawn(self, name: str) -> "subprocess.Popen[bytes]":
        i, ports = NODES.index(name), self._ports
        routes = {f"NATS_ROUTE_{n + 1}": f"nats://127.0.0.1:{ports[3 + n]}" for n in range(len(NODES))}
        variables = {"NATS_NAME": name, "NATS_DATA": str(self._root / name)}
        ours = ["-p", str(ports[i]), "-m", str(ports[6 + i]), "--cluster", f"nats://127.0.0.1:{ports[3 + i]}"]
        guard = ["setpriv", "--pdeathsig=KILL", "--"] if shutil.which("setpriv") else []
        with (self._root / f"{name}.log").open("ab") as out:
            return subprocess.Popen(
                [*guard, binary(), "-c", str(self._config), *ours],
                env=os.environ | variables | routes, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def kill(self, *names: str) -> None:
        """Stop all or the named as a crash does, at the same moment."""
        for name in names or NODES:
            self._processes[name].send_signal(signal.SIGKILL)
        for name in names or NODES:
            self._processes[name].wait()

    def stop(self) -> None:
        """Leave nothing behind."""
        self.kill()


def fitting(nats_url: str, settings: StreamSettings | None = None) -> StreamSettings:
    """The streams for an address: three replicas where it names a cluster."""
    settings = settings or StreamSettings()
    return msgspec.structs.replace(settings, replicas=len(NODES)) if "," in nats_url else settings


async def provisioned(connection: Connection, region: str, settings: StreamSettings = REPLICATED) -> None:
    """Provision, as soon as the servers have found each other. Raises: AssertionError."""

    async def taken() -> bool:
        try:
            await provision(connection, region, settings)
        except (Unavailable, Corrupt):
            return False
        return True

    await until(taken, READY_DEADLINE_S, "the cluster takes the streams")


async def leader(connection: Connection, stream: str) -> str:
    """The name of the server that leads a stream; waits until there is one. Raises: AssertionError."""

    async def known() -> str:
        try:
            answer = await connection.api(f"STREAM.INFO.{stream}", {})
        except Unavailable:
            return ""
        return str(answer.get("cluster", {}).get("leader", ""))

    return await until(known, READY_DEADLINE_S, f"{stream} has a leader")


async def connected(cluster: Cluster, name: str = "test") -> Connection:
    """A connection to the cluster, however long its servers take to start. Raises: Unavailable."""
    return await connect(cluster.url, name, deadline_s=READY_DEADLINE_S)
