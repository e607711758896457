"""The `store` of `langgraph.json`, with the user's embed function loaded."""

from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
from langchain_core.embeddings import Embeddings
from langgraph.store.base import ensure_embeddings
from langgraph.store.base.embed import EmbeddingsFunc

from slipstream_runner.graphs import read_config
from slipstream_schemas.limits import (
    STORE_DIMENSIONS_MAX,
    STORE_SWEEP_MINUTES,
    STORE_TTL_MINUTES_MAX,
    STORE_TTL_MINUTES_MIN,
)
from slipstream_schemas.user_code import BadConfig, load_module


class IndexConfig(msgspec.Struct):
    """`store.index`. `embed` is `file.py:name`, or `provider:model` of LangChain; `fields` are paths into an item."""

    dims: Annotated[int, msgspec.Meta(ge=1, le=STORE_DIMENSIONS_MAX)]
    embed: str
    fields: list[str] | None = None


class TtlConfig(msgspec.Struct):
    """`store.ttl`, in minutes."""

    default_ttl: Annotated[float, msgspec.Meta(ge=STORE_TTL_MINUTES_MIN, le=STORE_TTL_MINUTES_MAX)] | None = None
    refresh_on_read: bool = True
    sweep_interval_minutes: Annotated[float, msgspec.Meta(gt=0, le=STORE_TTL_MINUTES_MAX)] | None = None


class StoreConfig(msgspec.Struct):
    """The `store` object."""

    index: IndexConfig | None = None
    ttl: TtlConfig | None = None
    path: str | None = None


class Semantic(msgspec.Struct, frozen=True):
    """How items are embedded."""

    embeddings: Embeddings
    dims: int
    fields: list[str] | None = None


class StoreSettings(msgspec.Struct, frozen=True):
    """What a runner's store does; times in minutes."""

    semantic: Semantic | None = None
    default_ttl: float | None = None
    refresh_on_read: bool = True
    sweep_minutes: float = STORE_SWEEP_MINUTES

    def refreshes(self, asked: bool | None) -> bool:
        """Whether a read begins an item's time anew."""
        return self.refresh_on_read if asked is None else asked


def load_store_settings(path: Path) -> StoreSettings:
    """The settings in a `langgraph.json` whose environment is prepared (`Graphs.load`). Raises: BadConfig."""
    try:
        config = msgspec.convert(read_config(path).store or {}, StoreConfig)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{path}: `store` is not usable: {error}") from error
    if config.path is not None:
        raise BadConfig(f"{path}: `store.path` names a store of your own; Slipstream keeps items in Postgres alone")
    ttl = config.ttl or TtlConfig()
    semantic = None
    if config.index is not None:
        embeddings = _embeddings(config.index.embed, path.resolve().parent)
        semantic = Semantic(embeddings, config.index.dims, config.index.fields)
    sweep = ttl.sweep_interval_minutes or STORE_SWEEP_MINUTES
    return StoreSettings(semantic, ttl.default_ttl, ttl.refresh_on_read, sweep)


def _embeddings(reference: str, root: Path) -> Embeddings:
    """The user's function or object, or LangChain's model: anything but a file is `provider:model`."""
    file, _, variable = reference.rpartition(":")
    try:
        if not file.endswith(".py"):
            return ensure_embeddings(reference)
        found: Any = getattr(load_module(file, root), variable)
        if isinstance(found, Embeddings):
            return found
        if not callable(found):
            raise BadConfig(f"it is a {type(found).__name__}, not a function or Embeddings")
        return ensure_embeddings(cast("EmbeddingsFunc", found))
    except BadConfig as error:
        raise BadConfig(f"`store.index.embed` {reference!r}: {error.message}") from error
    except Exception as error:
        raise BadConfig(f"`store.index.embed` {reference!r}: {type(error).__name__}: {error}") from error
