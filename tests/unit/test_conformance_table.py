"""The conformance table is what the marks on the tests say."""

from pathlib import Path

import pytest

import conformance_table


def test_the_committed_table_is_the_generated_one() -> None:
    assert conformance_table.TABLE.read_text(encoding="utf-8") == conformance_table.generate()


@pytest.mark.parametrize(
    "source",
    [
        'def test_it():\n    """It holds."""\n',
        '@pytest.mark.promise("values", reference="same", aegra="same")\ndef test_it():\n    pass\n',
        '@pytest.mark.promise("values", reference="same")\ndef test_it():\n    """It holds."""\n',
        '@pytest.mark.promise(WIRE, reference="same", aegra="same")\ndef test_it():\n    """It holds."""\n',
    ],
)
def test_a_test_without_a_whole_promise_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance_table, "TESTS", tmp_path)
    module = tmp_path / "test_it.py"
    module.write_text(source)
    with pytest.raises(conformance_table.Unmarked):
        conformance_table.promises([module])


def test_a_row_holds_all_of_a_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance_table, "TESTS", tmp_path)
    module = tmp_path / "test_it.py"
    mark = '@pytest.mark.promise("values", reference="a|b", aegra="never")\n'
    module.write_text(mark + 'async def test_it():\n    """It\n    holds."""\n')
    page = conformance_table.render(conformance_table.promises([module]))
    assert page.endswith("| `values` | It holds. | a\\|b | never | `test_it.py::test_it` |\n")
