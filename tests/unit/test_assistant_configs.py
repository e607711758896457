"""What becomes of `config` and `context`: mirrored, merged with an assistant's, refused together."""

from typing import Any

import msgspec
import pytest

from slipstream_api.configs import checked, for_run, mirrored
from slipstream_postgres.rows import AssistantRow
from slipstream_schemas.errors import InvalidArgument, Rejected


def assistant(config: dict[str, Any], context: dict[str, Any]) -> AssistantRow:
    encode = msgspec.json.encode
    raw = msgspec.Raw
    return AssistantRow("a", "g", "n", None, raw(encode(config)), raw(encode(context)), raw(b"{}"), 1, "", "")


def test_what_is_given_is_copied_to_the_other() -> None:
    assert mirrored(None, None) == ({}, {})
    assert mirrored({"tags": ["t"], "configurable": {"a": 1}}, None) == (
        {"tags": ["t"], "configurable": {"a": 1}},
        {"a": 1},
    )
    assert mirrored({"tags": ["t"]}, {"a": 1}) == ({"tags": ["t"], "configurable": {"a": 1}}, {"a": 1})


def test_where_a_run_begins_is_no_context() -> None:
    config = {"configurable": {"checkpoint_id": "c", "thread_id": "t", "model": "m"}}
    assert mirrored(config, None) == (config, {"model": "m"})
    assert for_run(assistant({}, {}), {"configurable": {"checkpoint_id": "c"}}, None) == (
        {"configurable": {"checkpoint_id": "c"}},
        None,
    )


def test_a_run_says_more_than_its_assistant_key_by_key() -> None:
    base = assistant({"recursion_limit": 5, "configurable": {"a": 1, "b": 1}}, {"a": 1, "b": 1})
    assert for_run(base, None, None) == ({"recursion_limit": 5, "configurable": {"a": 1, "b": 1}}, {"a": 1, "b": 1})
    assert for_run(base, {"recursion_limit": 9}, {"b": 2}) == (
        {"recursion_limit": 9, "configurable": {"a": 1, "b": 2}},
        {"a": 1, "b": 2},
    )
    assert for_run(base, {"configurable": {"b": 3}}, {}) == (
        {"recursion_limit": 5, "configurable": {"a": 1, "b": 3}},
        {"a": 1, "b": 3},
    )
    assert for_run(assistant({}, {}), None, None) == ({}, None)


@pytest.mark.parametrize(
    "config",
    [{"configurable": []}, {"tags": "t"}, {"tags": [1]}, {"recursion_limit": "x"}, {"max_concurrency": 1.5}],
)
def test_a_config_of_wrong_types_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checked(config, None)
    assert refused.value.loc[:2] == ("body", "config")


def test_configurable_and_context_together_are_refused() -> None:
    with pytest.raises(Rejected, match="configurable and context"):
        checked({"configurable": {"a": 1}}, {"a": 1})
    assert checked({"configurable": {}}, {"a": 1}) == {"configurable": {}}
