"""What a record's header says is open: what the log holds before it, not what the translator knows already."""

from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessageChunk

from slipstream_runner.recover import open_after
from slipstream_runner.translate import LlmRuns, Translator, assemble
from slipstream_schemas.lines import decode_line
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
    translator.settle(2)
    translator.settle(2)
    assert len(translator.open_state().messages) == 1
    records_of(translator)
    assert translator.open_state() == OpenState()


def told_of(failing: LlmRuns, translator: Translator) -> list[str]:
    """The events of the message `m`, of whose call a chunk was under way when it failed, and a late one came."""
    metadata: dict[str, Any] = {"langgraph_node": "say", "langgraph_checkpoint_ns": "say:1"}
    for number in range(3):
        translator.feed((), "messages", (AIMessageChunk(content="x", id="m"), metadata), 1)
        if number == 0:
            failing.failed.append(("m", ValueError("boom")))
            translator.settle(1)
        if number == 1:
            failed = {"id": "1", "name": "say", "result": {}, "error": ValueError("boom"), "interrupts": []}
            translator.feed((), "tasks", failed, 2)
    lines = [decode_line(line) for record in records_of(translator) for line in record.lines]
    return [f"{line.kind} {line.data['event']}" for line in lines if line.method == "messages"]


def test_what_a_failed_call_said_before_it_failed_is_told() -> None:
    calls = LlmRuns()
    block = ["event content-block-start", "event content-block-delta"]
    told = ["event message-start", *block, "event content-block-delta", "event error", "x chunk"]
    assert told_of(calls, Translator(1, calls)) == told


def test_a_message_that_nobody_listens_to_ends_with_its_task() -> None:
    translator = Translator(1, LlmRuns())
    metadata: dict[str, Any] = {"langgraph_node": "say", "langgraph_checkpoint_ns": "sub:7|say:1"}
    translator.feed(SUB, "messages", (AIMessageChunk(content="x", id="m"), metadata), 1)
    translator.feed(SUB, "tasks", {"id": "1", "name": "say", "result": {}, "error": None, "interrupts": []}, 2)
    records_of(translator)
    assert translator.open_state() == OpenState((), (SUB,))


def test_parallel_messages_with_one_id_are_told_apart() -> None:
    """Providers' ids may repeat: the second message of a pair is open as the first one ends."""
    calls = LlmRuns()
    translator = Translator(1, calls)
    some: list[dict[str, Any]] = [{"langgraph_node": "say"}, {"langgraph_node": "say"}]
    runs = [UUID(int=number) for number in range(2)]
    for run_id, metadata in zip(runs, some, strict=True):
        calls.on_chat_model_start({}, [], run_id=run_id, metadata=metadata)
        translator.feed((), "messages", (AIMessageChunk(content="x", id="m"), metadata), 1)
    first = records_of(translator)[-1]
    assert [each.llm_run_id for each in translator.open_state().messages] == [str(run_id) for run_id in runs]
    assert open_after(first).messages == translator.open_state().messages
    translator.feed((), "messages", (AIMessageChunk(content="", id="m", chunk_position="last"), some[0]), 1)
    last = records_of(translator)[-1]
    assert [each.llm_run_id for each in open_after(last).messages] == [str(runs[1])]
