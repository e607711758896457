"""Loading the user's graphs from `langgraph.json`, and giving out one for each run."""

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph_sdk import runtime as sdk_runtime

from slipstream_runner.code_version import code_version
from slipstream_schemas.errors import NotFound
from slipstream_schemas.user_code import BadConfig, code_folders, config_file, load_object, prepare_environment


class GraphConfig(msgspec.Struct):
    """What the runner reads of `langgraph.json`."""

    graphs: dict[str, str | dict[str, Any]]
    dependencies: list[str] = []
    env: str | dict[str, str] | None = None
    encryption: Any = None
    store: Any = None


class LoadedGraph(msgspec.Struct):
    """A graph, or the factory that makes one for each use."""

    graph_id: str
    source: Any
    description: str | None = None


def read_config(path: Path) -> GraphConfig:
    """Read and check the file; an `aegra.json` beside it has the same shape. Raises: BadConfig."""
    path = config_file(path)
    try:
        config = msgspec.json.decode(path.read_bytes(), type=GraphConfig)
    except FileNotFoundError as error:
        raise BadConfig(f'{path} does not exist. Write one: {{"graphs": {{"agent": "./agent.py:graph"}}}}') from error
    except (msgspec.MsgspecError, OSError) as error:
        raise BadConfig(f"{path} is not a usable langgraph.json: {error}") from error
    if config.encryption is not None:
        raise BadConfig(f"{path} asks for `encryption`, which Slipstream does not support: it would store clear text")
    if not config.graphs:
        raise BadConfig(f"{path} names no graphs")
    return config


def load_graph(graph_id: str, reference: str | dict[str, Any], root: Path) -> LoadedGraph:
    """Import one graph. Raises: BadConfig naming the graph."""
    description = reference.get("description") if isinstance(reference, dict) else None
    target = reference.get("path", "") if isinstance(reference, dict) else reference
    source = load_object(f"graph {graph_id!r}", str(target), root)
    if isinstance(source, StateGraph):
        source = source.compile()
    if not isinstance(source, Pregel) and not callable(source):
        raise BadConfig(f"graph {graph_id!r}: {target} is a {type(source).__name__}, not a graph or a factory")
    return LoadedGraph(graph_id, source, description)


class Graphs:
    """The graphs of a runner. `version` changes when their code does."""

    def __init__(self, graphs: dict[str, LoadedGraph], version: str = "") -> None:
        self._graphs, self.version = graphs, version

    @classmethod
    def load(cls, path: Path) -> "Graphs":
        """Load every graph of a `langgraph.json`. Raises: BadConfig."""
        config, root = read_config(path), path.resolve().parent
        prepare_environment(config.dependencies, config.env, root)
        graphs = {graph_id: load_graph(graph_id, ref, root) for graph_id, ref in config.graphs.items()}
        return cls(graphs, code_version(msgspec.json.encode(config), code_folders(config.dependencies, root)))

    @property
    def ids(self) -> list[str]:
        """Every graph's id."""
        return list(self._graphs)

    @property
    def descriptions(self) -> dict[str, str]:
        """The described graphs."""
        return {g.graph_id: g.description for g in self._graphs.values() if g.description}

    def __contains__(self, graph_id: str) -> bool:
        return graph_id in self._graphs

    @contextlib.asynccontextmanager
    async def use(
        self, graph_id: str, config: dict[str, Any], checkpointer: Any, store: BaseStore | None = None
    ) -> "AsyncIterator[Pregel[Any, Any]]":
        """A graph bound to a checkpointer and a store, for one run or question. Raises: NotFound."""
        loaded = self._graphs.get(graph_id)
        if loaded is None:
            raise NotFound(f"this runner has no graph {graph_id!r}")
        async with contextlib.AsyncExitStack() as stack:
            graph = loaded.source
            if not isinstance(graph, Pregel):
                graph = await _make(loaded.source, config, store, stack)
            if isinstance(graph, StateGraph):
                graph = graph.compile()
            if not isinstance(graph, Pregel):
                raise BadConfig(f"graph {graph_id!r}: its factory made a {type(graph).__name__}, not a graph")
            yield graph.copy(update={"checkpointer": checkpointer, "store": store, "name": graph_id})


async def _make(
    factory: Callable[..., Any], config: dict[str, Any], store: BaseStore | None, stack: contextlib.AsyncExitStack
) -> Any:
    """Call a factory of 0, 1 or 2 parameters; it may be async or a context manager."""
    made = factory(**_arguments(factory, config, store))
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, contextlib.AbstractAsyncContextManager):
        return await stack.enter_async_context(made)
    if isinstance(made, contextlib.AbstractContextManager) and not isinstance(made, Pregel):
        return stack.enter_context(made)
    return made


def _arguments(factory: Callable[..., Any], config: dict[str, Any], store: BaseStore | None) -> dict[str, Any]:
    parameters = [
        p for p in inspect.signature(factory).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.default is p.empty
    ]  # fmt: skip
    if not parameters:
        return {}
    if len(parameters) > 2:
        raise BadConfig(f"a graph factory takes at most a config and a runtime, {factory.__name__} takes more")
    out: dict[str, Any] = {}
    for parameter in parameters:
        is_runtime = "runtime" in parameter.name.lower() or "Runtime" in str(parameter.annotation)
        out[parameter.name] = _runtime(store) if is_runtime else config
    return out


def _runtime(store: BaseStore | None) -> Any:
    """What a factory may ask about why it is called. Source: langgraph_sdk.runtime."""
    made = sdk_runtime._ExecutionRuntime  # pyright: ignore[reportPrivateUsage]  the public name is a union of types
    return made(access_context="threads.create_run", user=None, store=store or InMemoryStore())
