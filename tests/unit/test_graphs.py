"""Loading graphs from `langgraph.json`: every shape that a graph may have, and errors that say what to change."""

import subprocess
import sys
from pathlib import Path

import pytest

from slipstream_runner.graphs import Graphs
from slipstream_schemas.user_code import BadConfig

GRAPHS = """
import contextlib
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    text: str

def builder():
    made = StateGraph(State)
    made.add_node("one", lambda state: {"text": "x"})
    made.add_edge(START, "one")
    return made

compiled = builder().compile()
uncompiled = builder()
def plain(): return builder()
def with_config(config): return compiled if config["configurable"] == {} else None
def with_both(config, runtime): return compiled
async def asynchronous(config): return compiled
@contextlib.contextmanager
def managed(): yield compiled
@contextlib.asynccontextmanager
async def managed_async(config): yield compiled
number = 7
"""
NAMES = ("compiled", "uncompiled", "plain", "with_config", "with_both", "asynchronous", "managed", "managed_async")


def config(folder: Path, text: str) -> Path:
    (folder / "agent.py").write_text(GRAPHS)
    path = folder / "langgraph.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", NAMES)
async def test_every_shape_of_a_graph_runs(tmp_path: Path, name: str) -> None:
    graphs = Graphs.load(config(tmp_path, f'{{"graphs": {{"g": "./agent.py:{name}"}}}}'))
    async with graphs.use("g", {"configurable": {}}, None) as graph:
        assert await graph.ainvoke({"text": ""}) == {"text": "x"}


def test_a_described_graph_and_an_env_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FROM_CONFIG", raising=False)
    text = '{"graphs": {"g": {"path": "./agent.py:compiled", "description": "D"}}, "env": {"FROM_CONFIG": "1"}}'
    graphs = Graphs.load(config(tmp_path, text))
    assert graphs.ids == ["g"]
    assert graphs.descriptions == {"g": "D"}


def test_an_aegra_json_is_taken_when_there_is_no_other(tmp_path: Path) -> None:
    path = config(tmp_path, '{"graphs": {"g": "./agent.py:compiled"}, "http": {"app": "./app.py:app"}}')
    path.rename(tmp_path / "aegra.json")
    assert Graphs.load(path).ids == ["g"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"graphs": {"g": "./agent.py:missing"}}', "'g'"),
        ('{"graphs": {"g": "./agent.py:number"}}', "not a graph"),
        ('{"graphs": {"g": "./nothing.py:graph"}}', "nothing.py"),
        ('{"graphs": {"g": "agent.py"}}', "'g'"),
        ('{"graphs": {}}', "names no graphs"),
        ("{", "langgraph.json"),
        ('{"graphs": {"g": "./agent.py:compiled"}, "encryption": {"path": "./e.py:e"}}', "encryption"),
    ],
)
def test_errors_say_what_to_change(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        Graphs.load(config(tmp_path, text))


def test_a_module_has_the_same_name_in_every_process(tmp_path: Path) -> None:
    """Checkpoints name the modules of the classes that they hold; another process must find them."""
    path = config(tmp_path, '{"graphs": {"g": "./agent.py:builder"}}')
    code = (
        "import sys; from pathlib import Path; from slipstream_runner.graphs import Graphs; "
        f"g = Graphs.load(Path({str(path)!r})); print([n for n in sys.modules if 'agent' in n and 'slipstream' in n])"
    )
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    names = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1, names
