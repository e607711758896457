"""The server of `slipstream dev`: what it acknowledged survives kill -9, and it never outlives its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from slipstream_nats.connection import connect
from slipstream_nats.embedded import binary, start_nats
from slipstream_nats.provision import provision
from slipstream_nats.publisher import open_publisher
from slipstream_nats.stored import last_of_subject
from slipstream_schemas.errors import Unavailable
from slipstream_schemas.limits import MESSAGE_BYTES_MAX
from slipstream_schemas.subjects import Scope, thread_log, threads_stream
from testkit import permitted
from testkit.wait import until_now

CONFIGS = Path(__file__).parents[2] / "infra" / "nats"

PARENT = """
import sys, time
from pathlib import Path
from slipstream_nats.embedded import start_nats
print(start_nats(Path(sys.argv[1])).process.pid, flush=True)
time.sleep(600)
"""


async def test_acknowledged_records_survive_a_kill(tmp_path: Path) -> None:
    root = tmp_path / "state with a space"
    scope = Scope()
    server = start_nats(root)
    connection = await connect(server.url, "test")
    await provision(connection, scope.region)
    publisher = await open_publisher(connection)
    acks = [await publisher.publish(thread_log(scope, "t"), b"%d" % count) for count in range(200)]
    server.kill()
    await connection.close()

    server = start_nats(root, urlsplit(server.url).port or -1)
    connection = await connect(server.url, "test")
    last = await last_of_subject(connection, threads_stream(scope.region), thread_log(scope, "t"))
    assert last is not None and last.stream_seq == acks[-1].stream_seq and last.body == b"199"
    await connection.close()
    server.stop()


async def test_takes_the_largest_message(tmp_path: Path) -> None:
    server = start_nats(tmp_path)
    connection = await connect(server.url, "test")
    assert connection.payload_bytes_max == MESSAGE_BYTES_MAX
    await connection.close()
    server.stop()


def test_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until_now(lambda: not is_running(pid), what="the server stops")


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than an entry that nobody has reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    server = start_nats(tmp_path / "a")
    with pytest.raises(Unavailable, match="address already in use"):
        start_nats(tmp_path / "b", urlsplit(server.url).port or -1)
    server.stop()


async def test_no_server_is_a_clear_error() -> None:
    with pytest.raises(Unavailable, match=r"no NATS server answers at nats://127\.0\.0\.1:1 "):
        await connect("nats://127.0.0.1:1", "test", deadline_s=0.5)


async def test_errors_do_not_show_credentials() -> None:
    with pytest.raises(Unavailable) as caught:
        await connect("nats://me:s3cret@127.0.0.1:1, nats://token@127.0.0.1:1", "test", deadline_s=0.1)
    assert "at nats://127.0.0.1:1, nats://127.0.0.1:1 " in caught.value.message
    assert "s3cret" not in caught.value.message and "token" not in caught.value.message


@pytest.mark.parametrize("name", ["single.conf", "cluster.conf"])
def test_configurations_for_operators_are_valid(name: str, tmp_path: Path) -> None:
    variables = {
        "NATS_NAME": "nats-1",
        "NATS_DATA": str(tmp_path),
        **permitted.passwords(),
        **{f"NATS_ROUTE_{count}": f"nats://nats-{count}:6222" for count in (1, 2, 3)},
    }
    checked = subprocess.run(
        [binary(), "-t", "-c", str(CONFIGS / name)], env=variables, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    text = (CONFIGS / name).read_text()
    assert f"max_payload: {MESSAGE_BYTES_MAX // 2**20}MB" in text
    assert 'sync_interval: "always"' in text
