"""`config` and `context`, of assistants and of runs. Pure.

`context` is what became of `config.configurable`: a request gives one of them, and it is copied to the other, so that
graphs of either kind find it.
"""

from typing import Any

import msgspec

from slipstream_api.bodies import convert
from slipstream_postgres.rows import AssistantRow
from slipstream_schemas.errors import Rejected

PLACES = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map"})
"""Keys of `configurable` that say where a run begins; they are no context."""
BOTH = "Cannot specify both configurable and context."


class _Config(msgspec.Struct):
    """The known keys of a config; others are kept as they are."""

    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    recursion_limit: int | None = None
    max_concurrency: int | None = None
    configurable: dict[str, Any] | None = None


class _Holder(msgspec.Struct):
    config: _Config | None = None


def checked(config: dict[str, Any] | None, context: dict[str, Any] | None) -> dict[str, Any] | None:
    """The request's config. Raises: InvalidArgument, Rejected when `configurable` and `context` are both given."""
    convert({"config": config}, _Holder)
    if context and (config or {}).get("configurable"):
        raise Rejected(BOTH)
    return config


def mirrored(config: dict[str, Any] | None, context: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and context of a new assistant. Raises: as `checked`."""
    known = checked(config, context) or {}
    if context:
        return {**known, "configurable": context}, context
    configurable: dict[str, Any] = known.get("configurable") or {}
    return known, {key: value for key, value in configurable.items() if key not in PLACES}


def for_run(
    assistant: AssistantRow, config: dict[str, Any] | None, context: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Config and context of a run: the assistant's, and key by key what the request says above it.

    Raises: as `checked`.
    """
    own, own_context = mirrored(config, context)
    base, base_context = msgspec.json.decode(assistant.config), msgspec.json.decode(assistant.context)
    configurable = {**(base.get("configurable") or {}), **(own.get("configurable") or {})}
    merged = {**base, **own}
    if configurable or "configurable" in merged:
        merged["configurable"] = configurable
    return merged, {**base_context, **own_context} or None
