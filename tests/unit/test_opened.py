"""What a record's header says is open: what the log holds before it, not what the translator knows already."""

from typing import Any

from langchain_core.messages import AIMessageChunk

from slipstream_runner.recover import open_after
from slipstream_runner.translate import LlmRuns, Translator, assemble
from slipstream_schemas.record import OpenMessage, OpenState, Record, RecordHeader
from slipstream_schemas.seq import pack

WORDS = 600
"""More than two records hold."""
SUB = ("sub:1",)


def records_of(translator: Translator) -> list[Record]:
    """Everything that waits, as the flusher puts it into records."""
    out: list[Record] = []
    while len(translator):
        opened = translator.open_state()
        drafts, starts, _ = translator.drain()
        seq = 10 + len(out)
        out.append(Record(seq, RecordHeader("r", 1, len(out) + 1, opened), assemble(drafts, "r", 1, len(out) + 1)))
        for line, message in starts:
            translator.started_at(message, pack(seq, line))
    return out


def test_what_ends_behind_a_record_is_open_at_its_start() -> None:
    translator = Translator(1, LlmRuns())
    metadata: dict[str, Any] = {"langgraph_node": "say"}
    for number in range(WORDS):
        last: Any = {"chunk_position": "last"} if number == WORDS - 1 else {}
        translator.feed(SUB, "messages", (AIMessageChunk(content="x ", id="m", **last), metadata), 1)
    translator.feed((), "tasks", {"id": "1", "name": "sub", "result": {}, "error": None, "interrupts": []}, 2)
    first, second, third = records_of(translator)
    assert first.header.open == OpenState()
    began = pack(first.stream_seq, 1)
    for record in (second, third):
        assert record.header.open == OpenState((OpenMessage(SUB, "m", "m", began, "say"),), (SUB,))
    assert open_after(second) == third.header.open
    assert open_after(third) == OpenState()
    assert translator.open_state() == OpenState()


def test_a_failed_call_closes_its_message_where_the_log_says_so() -> None:
    calls = LlmRuns()
    translator = Translator(1, calls)
    translator.feed((), "messages", (AIMessageChunk(content="x", id="m"), {"langgraph_node": "say"}), 1)
    records_of(translator)
    assert [each.message_id for each in translator.open_state().messages] == ["m"]
    calls.failed.append(("m", ValueError("boom")))
    translator.feed((), "custom", 1, 2)
    assert len(translator.open_state().messages) == 1
    records_of(translator)
    assert translator.open_state() == OpenState()
