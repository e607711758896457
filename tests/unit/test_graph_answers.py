"""What is remembered of graphs, in which memory, and by which name of their code."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from slipstream_api.drawings import Drawings
from slipstream_runner.code_version import code_version


def test_answers_belong_to_a_version_and_a_question() -> None:
    kept = Drawings()
    kept.put("v1", b"q", b"one")
    kept.put("v2", b"q", b"two")
    assert kept.get("v1", b"q") == b"one" and kept.get("v2", b"q") == b"two"
    assert kept.get("v1", b"other") is None and kept.get("v3", b"q") is None
    kept.put("v1", b"q", b"one again")
    assert kept.get("v1", b"q") == b"one again"


def test_the_answer_unused_for_longest_makes_room() -> None:
    kept = Drawings(bytes_max=30)
    for name in ("a", "b", "c"):
        kept.put("v", name.encode(), b"x" * 9)
    assert kept.get("v", b"a") is not None
    kept.put("v", b"d", b"x" * 9)
    assert kept.get("v", b"b") is None and kept.get("v", b"a") is not None
    kept.put("v", b"e", b"x" * 31)
    assert [kept.get("v", name) for name in (b"a", b"c", b"d", b"e")] == [None] * 4
    kept.put("v", b"f", b"x" * 29)
    assert kept.get("v", b"f") is not None


def loaded(folder: Path, name: str, text: str) -> ModuleType:
    """A module as an import of that file leaves it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    return module


def test_a_version_names_the_code_and_not_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        monkeypatch.setitem(sys.modules, f"agent_of_{place.name}", loaded(place, "agent.py", "x = 1"))
    before = code_version(b"{}", [one])
    assert before == code_version(b"{}", [two]) == code_version(b"{}", [one])
    assert before != code_version(b'{"graphs":{}}', [one])
    # Packages change with their own versions; what a graph of the user's has not imported does not matter.
    package = loaded(one, ".venv/lib/site-packages/other.py", "y = 1")
    monkeypatch.setitem(sys.modules, "other_of_one", package)
    (one / "unused.py").write_text("z = 1")
    assert code_version(b"{}", [one]) == before
    monkeypatch.setitem(sys.modules, "helper_of_one", loaded(one, "helper.py", "y = 1"))
    with_helper = code_version(b"{}", [one])
    assert with_helper != before
    (one / "agent.py").write_text("x = 2")
    assert code_version(b"{}", [one]) not in (before, with_helper)
