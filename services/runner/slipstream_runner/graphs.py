"""Loading the user's graphs from `langgraph.json`, and giving out one for each run."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph_sdk import runtime as sdk_runtime

from slipstream_runner.code_version import code_version
from slipstream_schemas.errors import NotFound, Rejected


class BadConfig(Rejected):
    """`langgraph.json` or a graph in it cannot be used; the message names the file and what to change."""


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
    if not path.exists() and path.with_name("aegra.json").exists():
        path = path.with_name("aegra.json")
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


def _folders(config: GraphConfig, root: Path) -> list[Path]:
    """The folders of the user's code."""
    folders = [(root / dependency).resolve() for dependency in (".", *config.dependencies)]
    return [folder for folder in folders if folder.is_dir()]


def prepare_environment(config: GraphConfig, root: Path) -> None:
    """Put the dependencies on the import path and the variables of `env` into the environment."""
    for folder in _folders(config, root):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    variables = config.env if isinstance(config.env, dict) else {}
    if isinstance(config.env, str) and (root / config.env).exists():
        for line in (root / config.env).read_text().splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                variables[name.strip().removeprefix("export ")] = value.strip().strip("\"'")
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def load_module(reference: str, root: Path) -> ModuleType:
    """Import a module of the user's, by its file or its name. Raises: BadConfig, and what importing it raises."""
    if "/" not in reference and not reference.endswith(".py"):
        return importlib.import_module(reference)
    path = (root / reference).resolve()
    # Checkpoints name the modules of the classes that they hold: the name must be the same in every process.
    name = "slipstream_user_" + re.sub(r"\W", "_", reference.removesuffix(".py").lstrip("./"))
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise BadConfig(f"the file {path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_graph(graph_id: str, reference: str | dict[str, Any], root: Path) -> LoadedGraph:
    """Import one graph. Raises: BadConfig naming the graph."""
    description = reference.get("description") if isinstance(reference, dict) else None
    target = reference.get("path", "") if isinstance(reference, dict) else reference
    module_name, colon, variable = str(target).rpartition(":")
    if not colon:
        raise BadConfig(f"graph {graph_id!r}: {target!r} must look like ./file.py:variable or module:variable")
    try:
        source = getattr(load_module(module_name, root), variable)
    except AttributeError as error:
        raise BadConfig(f"graph {graph_id!r}: {module_name} has no {variable!r}") from error
    except BadConfig as error:
        raise BadConfig(f"graph {graph_id!r}: {error.message}") from error
    except Exception as error:
        raise BadConfig(
            f"graph {graph_id!r}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
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
        prepare_environment(config, root)
        graphs = {graph_id: load_graph(graph_id, ref, root) for graph_id, ref in config.graphs.items()}
        return cls(graphs, code_version(msgspec.json.encode(config), _folders(config, root)))

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
