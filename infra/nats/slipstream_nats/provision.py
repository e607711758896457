"""The streams and the work consumer as code. Idempotent; refuses what has drifted, and says what differs."""

import logging
from typing import Any

import msgspec

from slipstream_nats.connection import Connection
from slipstream_nats.permissions import Feed
from slipstream_nats.workqueue import CONSUMER
from slipstream_schemas import subjects
from slipstream_schemas.errors import Corrupt, Unavailable
from slipstream_schemas.limits import ACK_WAIT_S, DUPLICATE_WINDOW_S, MESSAGE_BYTES_MAX, STREAM_CONSUMERS_MAX

log = logging.getLogger("slipstream.provision")

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
ACK_PENDING_MAX = 100_000


class StreamSettings(msgspec.Struct, frozen=True):
    """What an operator chooses."""

    replicas: int = 1
    ack_wait_s: float = ACK_WAIT_S


class ProvisionRefused(Corrupt):
    """A stream or consumer exists with a configuration that would break a promise."""


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def stream_configs(region: str, settings: StreamSettings) -> list[dict[str, Any]]:
    """The two streams of a region."""
    common: dict[str, Any] = {
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": settings.replicas,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_bytes": -1,
        # The broker knows no runs: by age it would take the records of one that goes on. Retention is ours.
        "max_age": 0,
        # Of tombstones, and of the records that end streams.
        "allow_msg_ttl": True,
        "max_msg_size": MESSAGE_BYTES_MAX,
        # 2.15 caps a stream at 1,000 consumers unless it says otherwise; each stream that catches up has one.
        "max_consumers": STREAM_CONSUMERS_MAX,
        "duplicate_window": _ns(DUPLICATE_WINDOW_S),
        "allow_direct": True,
        # Deleted threads are purged, and old records of long ones.
        "deny_purge": False,
        "sealed": False,
        # What would acknowledge nothing, acknowledge before it is written, store it elsewhere, or store what we did not
        # write.
        "no_ack": False,
        "persist_mode": "",
        "subject_transform": None,
        "sources": None,
        "mirror": None,
    }
    threads = {
        **common,
        "name": subjects.threads_stream(region),
        "subjects": [subjects.family("threads", region), subjects.family("leases", region)],
    }
    control = {
        **common,
        "name": subjects.control_stream(region),
        "subjects": [subjects.family(name, region) for name in ("control", "work", "crons")],
        # The broker refuses schedules together with `discard: new`. Without limits nothing is ever discarded.
        "discard": "old",
        "allow_msg_schedules": True,
    }
    return [threads, control]


def consumer_config(region: str, settings: StreamSettings) -> dict[str, Any]:
    """The durable consumer that hands out work."""
    return {
        "durable_name": CONSUMER,
        "filter_subject": subjects.family("work", region),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _ns(settings.ack_wait_s),
        "max_deliver": -1,
        "max_ack_pending": ACK_PENDING_MAX,
        "num_replicas": settings.replicas,
    }


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Each setting that is not as wanted. The broker leaves out what is zero or false."""
    out: list[str] = []
    for key, want in wanted.items():
        have = found.get(key, type(want)() if isinstance(want, (int, str, bool)) else None)
        # The broker keeps the order of subjects that it was given.
        same = sorted(have) == sorted(want) if isinstance(have, list) and isinstance(want, list) else have == want
        if not same:
            out.append(f"{key}: wanted {want!r}, found {have!r}")
    return out


async def provision(connection: Connection, region: str, settings: StreamSettings | None = None) -> None:
    """Create what is missing, accept what is right.

    Raises: ProvisionRefused for drift, naming each difference; Unavailable.
    """
    settings = settings or StreamSettings()
    if connection.payload_bytes_max < MESSAGE_BYTES_MAX:
        log.warning(
            "NATS takes messages of %d bytes only: larger graph states will fail. Set max_payload: 8MB on the server",
            connection.payload_bytes_max,
        )
    for config in stream_configs(region, settings):
        name = config["name"]
        answer = await connection.api(f"STREAM.INFO.{name}", {})
        if answer.get("error", {}).get("err_code") == STREAM_NOT_FOUND:
            _require(await connection.api(f"STREAM.CREATE.{name}", config), f"create stream {name}")
            log.info("created stream %s", name)
        else:
            _require(answer, f"read stream {name}")
            _refuse_drift(f"stream {name}", config, answer["config"])
    await _provision_consumer(connection, subjects.control_stream(region), consumer_config(region, settings))


async def provision_feed(connection: Connection, region: str, feed: Feed, replicas: int = 1) -> None:
    """Make the consumer of an auditor, who may not make one: a consumer may deliver to any subject.

    Raises: ProvisionRefused, Unavailable.
    """
    config = {
        "durable_name": feed.name,
        "filter_subject": f"{feed.family}.{region}.{feed.tenant}.>",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "max_deliver": -1,
        "num_replicas": replicas,
    }
    await _provision_consumer(connection, feed.stream(region), config)


async def _provision_consumer(connection: Connection, stream: str, config: dict[str, Any]) -> None:
    name = config["durable_name"]
    answer = await connection.api(f"CONSUMER.INFO.{stream}.{name}", {})
    if answer.get("error", {}).get("err_code") == CONSUMER_NOT_FOUND:
        query = {"stream_name": stream, "config": config, "action": "create"}
        created = await connection.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", query)
        _require(created, f"create consumer {name}")
        return
    _require(answer, f"read consumer {name}")
    _refuse_drift(f"consumer {name} of {stream}", config, answer["config"])


def _require(answer: dict[str, Any], what: str) -> None:
    error = answer.get("error")
    if error:
        raise Unavailable(f"cannot {what}: {error.get('description')} ({error.get('err_code')})")


def _refuse_drift(what: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    different = differences(wanted, found)
    if different:
        listed = "; ".join(different)
        raise ProvisionRefused(f"{what} is not as Slipstream needs it. Change it or the settings: {listed}")
