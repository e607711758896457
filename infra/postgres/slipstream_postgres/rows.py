"""Rows as the API shows them. JSON columns stay bytes on their way through."""

from datetime import datetime
from typing import Any

import msgspec

NULL = msgspec.Raw(b"null")


class ThreadRow(msgspec.Struct):
    """A thread. Field order is that of the wire."""

    thread_id: str
    created_at: str
    updated_at: str
    state_updated_at: str
    metadata: msgspec.Raw
    status: str
    config: msgspec.Raw
    values: msgspec.Raw
    error: msgspec.Raw
    interrupts: msgspec.Raw


class RunRow(msgspec.Struct):
    """A run."""

    run_id: str
    thread_id: str
    assistant_id: str
    created_at: str
    updated_at: str
    status: str
    metadata: msgspec.Raw
    kwargs: msgspec.Raw
    multitask_strategy: str


class RunPlace(msgspec.Struct):
    """Where a run lies: its thread, and the thread log's last stream_seq when it was accepted."""

    run_id: str
    thread_id: str
    status: str
    log_seq: int
    attempt: int
    error: msgspec.Raw


class AssistantRow(msgspec.Struct):
    """An assistant."""

    assistant_id: str
    graph_id: str
    name: str
    description: str | None
    config: msgspec.Raw
    context: msgspec.Raw
    metadata: msgspec.Raw
    version: int
    created_at: str
    updated_at: str


class AssistantVersionRow(msgspec.Struct):
    """What an assistant was at one of its versions."""

    assistant_id: str
    version: int
    graph_id: str
    name: str
    description: str | None
    config: msgspec.Raw
    context: msgspec.Raw
    metadata: msgspec.Raw
    created_at: str


def raw(value: bytes | None) -> msgspec.Raw:
    """A JSON column."""
    return NULL if value is None else msgspec.Raw(value)


def moment(value: datetime) -> str:
    """A time as the wire has it."""
    return value.isoformat()


def thread_row(row: Any) -> ThreadRow:
    """A row of `threads`."""
    return ThreadRow(
        row["thread_id"], moment(row["created_at"]), moment(row["updated_at"]), moment(row["state_updated_at"]),
        raw(row["metadata"]), row["status"], raw(row["config"]), raw(row["values"]), raw(row["error"]),
        raw(row["interrupts"]),
    )  # fmt: skip


def run_row(row: Any) -> RunRow:
    """A row of `runs`."""
    return RunRow(
        row["run_id"], row["thread_id"], row["assistant_id"], moment(row["created_at"]), moment(row["updated_at"]),
        row["status"], raw(row["metadata"]), raw(row["kwargs"]), row["multitask_strategy"],
    )  # fmt: skip


def assistant_row(row: Any) -> AssistantRow:
    """A row of `assistants`."""
    return AssistantRow(
        row["assistant_id"], row["graph_id"], row["name"], row["description"], raw(row["config"]), raw(row["context"]),
        raw(row["metadata"]), row["version"], moment(row["created_at"]), moment(row["updated_at"]),
    )  # fmt: skip


def assistant_version_row(row: Any) -> AssistantVersionRow:
    """A row of `assistant_versions`."""
    return AssistantVersionRow(
        row["assistant_id"], row["version"], row["graph_id"], row["name"], row["description"], raw(row["config"]),
        raw(row["context"]), raw(row["metadata"]), moment(row["created_at"]),
    )  # fmt: skip
