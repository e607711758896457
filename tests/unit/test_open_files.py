"""How many connections an API lets in, and what it says of the others."""

import resource
import subprocess
import sys

import pytest

from slipstream_api.open_files import Room
from slipstream_schemas.limits import OPEN_FILES_KEPT, OPEN_FILES_MAX

SHOW = """
from slipstream_api.open_files import room_of_process
print(room_of_process().connections_max, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_what_is_beyond_the_room_is_refused_and_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(2)
    assert [room.is_over(connections) for connections in (1, 2, 3, 3)] == [False, False, True, True]
    assert [record.getMessage().split(" are ")[0] for record in caplog.records] == ["2 connections"]


@pytest.mark.parametrize(("soft", "hard", "room"), [(200, 1024, 1024 - OPEN_FILES_KEPT), (100, 100, 50)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, room: int) -> None:
    command = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n{SHOW}"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(room), str(hard)]
    assert f"room for {room} connections" in said.stderr


def test_a_high_limit_says_nothing() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8192:
        pytest.skip("the kernel allows too few files here")
    said = subprocess.run(
        [sys.executable, "-c", f"import resource\n{SHOW}"], capture_output=True, text=True, check=True
    )
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    assert int(said.stdout.split()[0]) == wanted - OPEN_FILES_KEPT
    assert not said.stderr
