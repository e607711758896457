"""Provisioning creates what is missing, accepts what is right, and names what is wrong."""

import asyncio
import logging

import pytest

from slipstream_nats.connection import Connection
from slipstream_nats.provision import ProvisionRefused, StreamSettings, provision
from slipstream_schemas.limits import STREAM_CONSUMERS_MAX
from slipstream_schemas.subjects import control_stream, threads_stream


async def _update(connection: Connection, stream: str, **changes: object) -> None:
    config = (await connection.api(f"STREAM.INFO.{stream}", {}))["config"]
    answer = await connection.api(f"STREAM.UPDATE.{stream}", {**config, **changes})
    assert "error" not in answer, answer


async def test_streams_have_the_settings_that_promises_hang_on(connection: Connection, region: str) -> None:
    threads = (await connection.api(f"STREAM.INFO.{threads_stream(region)}", {}))["config"]
    control = (await connection.api(f"STREAM.INFO.{control_stream(region)}", {}))["config"]
    assert threads["subjects"] == [f"threads.{region}.>", f"leases.{region}.>"]
    assert control["subjects"] == [f"control.{region}.>", f"work.{region}.>", f"crons.{region}.>"]
    for config in (threads, control):
        assert config["storage"] == "file" and config["allow_direct"]
        assert config["max_consumers"] == STREAM_CONSUMERS_MAX
        assert config["max_msgs"] == config["max_msgs_per_subject"] == config["max_bytes"] == -1
    assert threads["discard"] == "new" and threads["allow_msg_ttl"]
    assert control["allow_msg_schedules"] and control["allow_msg_ttl"]
    assert threads["max_age"] == control["max_age"] == 0


async def test_again_and_at_once_changes_nothing(connection: Connection, region: str) -> None:
    fresh = f"{region}x"
    await asyncio.gather(*(provision(connection, fresh) for _ in range(4)))
    created = (await connection.api(f"STREAM.INFO.{control_stream(fresh)}", {}))["created"]
    await provision(connection, fresh)
    assert (await connection.api(f"STREAM.INFO.{control_stream(fresh)}", {}))["created"] == created


async def test_every_difference_is_named(connection: Connection, region: str) -> None:
    await _update(connection, control_stream(region), max_age=3_600_000_000_000, max_msgs=10)
    with pytest.raises(ProvisionRefused) as caught:
        await provision(connection, region)
    message = caught.value.message
    assert control_stream(region) in message
    assert "max_age: wanted 0, found 3600000000000" in message
    assert "max_msgs: wanted -1, found 10" in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_age": 604_800_000_000_000}, "max_age: wanted 0, found 604800000000000"),
        ({"no_ack": True}, "no_ack: wanted False, found True"),
        ({"discard": "old"}, "discard: wanted 'new', found 'old'"),
        ({"duplicate_window": 1_000_000_000}, "duplicate_window"),
        ({"subject_transform": {"src": "threads.>", "dest": "elsewhere.>"}}, "subject_transform"),
        ({"allow_direct": False}, "allow_direct: wanted True, found False"),
        ({"max_msg_size": 1_000_000}, "max_msg_size: wanted 8388608, found 1000000"),
    ],
)
async def test_unsafe_settings_are_refused(
    connection: Connection, region: str, change: dict[str, object], named: str
) -> None:
    await _update(connection, threads_stream(region), **change)
    with pytest.raises(ProvisionRefused) as caught:
        await provision(connection, region)
    assert named in caught.value.message


async def test_a_drifted_work_consumer_is_refused(connection: Connection, region: str) -> None:
    with pytest.raises(ProvisionRefused, match=r"ack_wait: wanted 42000000000, found 10000000000"):
        await provision(connection, region, StreamSettings(ack_wait_s=42))


async def test_creation_is_logged_once(connection: Connection, region: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "slipstream.provision"):
        await provision(connection, f"{region}x")
        await provision(connection, f"{region}x")
    assert [record.getMessage() for record in caplog.records] == [
        f"created stream {threads_stream(region)}x",
        f"created stream {control_stream(region)}x",
    ]
