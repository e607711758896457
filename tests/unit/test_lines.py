"""Lines, headers, cursors and filters, over generated values."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from slipstream_schemas import channels, codec, lines, record, seq
from slipstream_schemas.errors import Corrupt, InvalidArgument
from slipstream_schemas.ids import check_thread_id, new_run_id, system_assistant_id

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
namespaces = st.lists(text, max_size=4).map(tuple)


@given(namespaces, json_values, st.none() | json_values, st.none() | text)
def test_a_line_reads_back_and_its_x_is_cut_off_without_decoding(
    namespace: tuple[str, ...], payload: Any, x: Any, node: str | None
) -> None:
    line = lines.encode_line("custom", namespace, payload, 5, "r:1:2:3", node=node, x=x)
    view = lines.decode_line(line)
    assert (view.namespace, view.data, view.node, view.event_id) == (namespace, payload, node, "r:1:2:3")
    assert b"\n" not in line
    v2, cut = lines.split_x(line)
    assert (None if cut is None else msgspec.json.decode(cut)) == x
    assert "x" not in msgspec.json.decode(v2)
    spliced = msgspec.json.decode(lines.splice_seq(line, 7))
    assert spliced.pop("seq") == 7 and spliced == msgspec.json.decode(v2)


@given(namespaces, json_values)
def test_the_prefix_decides_channel_and_namespace(namespace: tuple[str, ...], payload: Any) -> None:
    line = lines.encode_line("updates", namespace, payload, 5, "e", v1_only=True)
    assert lines.decode_prefix(lines.prefix(line)) == lines.Prefix("x", "updates", namespace)
    assert not lines.is_event(line)


def test_a_line_without_a_prefix_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        lines.prefix(b'{"type":"event"}')


@given(namespaces, text, st.integers(0, 2**40))
def test_a_record_header_reads_back(namespace: tuple[str, ...], message: str, number: int) -> None:
    opened = record.OpenState((record.OpenMessage(namespace, message, "llm", number),), (namespace,))
    for header in (record.RecordHeader("run", 2, 3, opened), record.RecordHeader("run", 2, 3)):
        value = record.header_value(header)
        assert value.isascii() and "\n" not in value and "\r" not in value
        assert record.parse_header(value) == header


@given(st.integers(1, 2**44), st.integers(0, 255))
def test_the_cursor_orders_records_before_lines(stream_seq: int, line: int) -> None:
    packed = seq.pack(stream_seq, line)
    assert seq.unpack(packed) == (stream_seq, line)
    assert packed <= seq.last_of(stream_seq) < seq.pack(stream_seq + 1, 0) <= seq.SEQ_MAX
    assert seq.last_of(0) == 0


@pytest.mark.parametrize(
    ("wanted", "namespace", "depth", "matches"),
    [
        ((), ("a:1", "b:2"), None, True),
        ((), ("a:1",), 0, False),
        (("a",), ("a:1",), 0, True),
        (("a",), ("a:1", "b:2"), 0, False),
        (("a",), ("a:1", "b:2"), 1, True),
        (("a:2",), ("a:1",), None, False),
        (("a:1",), ("a:1",), None, True),
        (("a", "b"), ("a:1",), None, False),
    ],
)
def test_namespaces_match_as_in_the_stock_clients(
    wanted: tuple[str, ...], namespace: tuple[str, ...], depth: int | None, matches: bool
) -> None:
    assert channels.namespace_matches(wanted, namespace, depth) is matches


def test_a_filter_takes_named_custom_events_and_no_v1_lines() -> None:
    chosen = channels.ChannelFilter(channels.parse_channels(["custom:progress", "input"]))
    named = lines.encode_line("custom", (), {"name": "progress", "payload": 1}, 1, "e")
    other = lines.encode_line("custom", (), {"name": "progressive", "payload": 1}, 1, "e")
    plain = lines.encode_line("custom", (), {"payload": {"name": "progress"}}, 1, "e")
    asked = lines.encode_line("input.requested", (), {"interrupt_id": "i"}, 1, "e")
    hidden = lines.encode_line("input.requested", (), {}, 1, "e", v1_only=True)
    assert [chosen.matches(line) for line in (named, other, plain, asked, hidden)] == [True, False, False, True, False]


@pytest.mark.parametrize("bad", [[], ["bogus"], ["custom:"], ["debug"], ["values"] * 65])
def test_unknown_channels_are_refused(bad: list[str]) -> None:
    with pytest.raises(channels.UnsupportedChannels):
        channels.parse_channels(bad)


@pytest.mark.parametrize("bad", ["", "a.b", "a*", ">", "a b", "ä", "x" * 129, "a\n"])
def test_ids_with_subject_characters_are_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        check_thread_id(bad)


def test_ids() -> None:
    first, second = new_run_id(), new_run_id()
    assert first[14] == "7" and first[:8] <= second[:8]
    assert system_assistant_id("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"  # as recorded from the reference


@given(json_values)
def test_json_values_read_back(value: Any) -> None:
    assert codec.loads(codec.dumps(value)) == value
    assert codec.to_plain(value) == value
