"""What every process reads from its environment, once, at its start."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from slipstream_schemas import limits
from slipstream_schemas.errors import Rejected
from slipstream_schemas.log_lines import JsonLines

PREFIX = "SLIPSTREAM_"
HIDDEN = "…"


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the services. Each `SLIPSTREAM_X` is the field `x`; secrets do not print."""

    nats_url: str = "nats://127.0.0.1:4222"
    nats_ca_file: str = ""
    nats_cert_file: str = ""
    nats_key_file: str = ""
    database_url: str = "postgresql://postgres@127.0.0.1:5432/postgres"
    region: str = "local"
    config: str = "langgraph.json"
    host: str = "127.0.0.1"
    port: int = 2024
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    replicas: int = 1
    threads_age_max_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    threads_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    runner_slots: int = limits.RUNNER_SLOTS
    ack_wait_s: float = limits.ACK_WAIT_S
    stall_limit_s: float = limits.STALL_LIMIT_S
    run_timeout_s: float = limits.RUN_TIMEOUT_S
    drain_grace_s: float = limits.DRAIN_GRACE_S
    sweep_s: float = 30.0
    stateless_kept_s: float = limits.STATELESS_KEPT_S
    caller_requests_max: Annotated[int, msgspec.Meta(ge=1)] = limits.CALLER_REQUESTS_MAX
    sdk_events_per_s: int = limits.PYTHON_SDK_EVENTS_PER_S
    webhook_secret: str = ""
    webhook_allow_private: bool = False
    crashpoint: str = ""

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if not name.endswith(("_url", "_secret"))}
        return f"ServiceSettings({shown})"


def settings_from_environment(environment: Mapping[str, str] | None = None) -> ServiceSettings:
    """Build the settings. Raises: Rejected for an unknown name or a value of the wrong type."""
    source = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for name, value in source.items():
        if name.startswith(PREFIX):
            values[name.removeprefix(PREFIX).lower()] = value
    for name in ("NATS_URL", "DATABASE_URL"):
        if source.get(name):
            values[name.lower()] = source[name]
    unknown = sorted(set(values) - set(ServiceSettings.__struct_fields__))
    if unknown:
        names = ", ".join(PREFIX + name.upper() for name in unknown)
        raise Rejected(f"unknown setting {names}. Known: {', '.join(known_names())}")
    try:
        return msgspec.convert(values, ServiceSettings, strict=False)
    except msgspec.ValidationError as error:
        raise Rejected(f"a setting has the wrong type: {error}") from error


def known_names() -> list[str]:
    """The names of the environment, for messages."""
    return [name.upper() if name.endswith("_url") else PREFIX + name.upper()
            for name in ServiceSettings.__struct_fields__]  # fmt: skip


def log_to_stderr(level: str, form: Literal["text", "json"] = "text") -> None:
    """One line for each log record, on stderr; with `json` an object, tracebacks and warnings included."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s  %(message)s", force=True
    )
    if form == "json":
        logging.getLogger().handlers[0].setFormatter(JsonLines())
        logging.captureWarnings(True)
    for noisy in ("asyncio", "httpx", "nats", "psycopg"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
