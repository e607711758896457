"""Messages as content-block events, derived from the chunks that LangGraph streams for protocol v1."""

from collections import OrderedDict
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.utils._merge import merge_dicts

from slipstream_runner.translate import blocks
from slipstream_runner.translate.drafts import Draft, draft, encode_x
from slipstream_schemas import lines
from slipstream_schemas.codec import dumps, to_plain
from slipstream_schemas.limits import MODEL_CALLS_REMEMBERED_MAX
from slipstream_schemas.record import OpenMessage

_DEFAULTS: Final[dict[str, Any]] = {
    "content": "", "additional_kwargs": {}, "response_metadata": {}, "type": "AIMessageChunk", "name": None,
    "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None, "tool_call_chunks": [], "chunk_position": None,
}  # fmt: skip
Key = tuple[tuple[str, ...], str]
"""Namespace, and the model call or message id."""
TEXT_KEY: Final = ("", "text", 0)
TEXT_X: Final = b'\t,"x":{"c":1}}'


def sparse_chunk(chunk: AIMessageChunk, message_id: str) -> dict[str, Any]:
    """The fields of a chunk that are not default, in the v1 dump's form."""
    dumped: dict[str, Any] = to_plain(chunk.model_dump())
    out = {k: v for k, v in dumped.items() if k not in _DEFAULTS or v != _DEFAULTS[k]}
    if out.get("id") == message_id:
        del out["id"]
    return out


class _Open:
    """A message in the making."""

    def __init__(self, namespace: tuple[str, ...], message_id: str, llm_run: str, metadata: dict[str, Any]) -> None:
        self.node: str | None = metadata.get("langgraph_node")
        self.namespace, self.message_id, self.llm_run, node = namespace, message_id, llm_run, self.node
        self.task = str(metadata.get("langgraph_checkpoint_ns") or "").rpartition("|")[2]
        self.blocks: dict[Any, tuple[int, blocks.Block]] = {}
        self.usage: dict[str, Any] = {}
        self.response_metadata: dict[str, Any] = {}
        self.additional_kwargs: dict[str, Any] = {}
        self.text: tuple[bytes, bytes] | None = None
        self.pieces: list[str] = []
        self.opening = OpenMessage(namespace, message_id, llm_run, -1, node)
        self.tail = b',"message_id":%b,"run_id":%b}' % (dumps(message_id), dumps(llm_run))
        self.end = b'},"event_id":' if node is None else b',"node":%b},"event_id":' % dumps(node)

    def gather_text(self) -> None:
        """Put the pieces of the one text block together: adding each to the text would copy the text each time."""
        if self.pieces:
            self.blocks[TEXT_KEY][1]["text"] += "".join(self.pieces)
            self.pieces.clear()

    def data(self, event: dict[str, Any]) -> bytes:
        """The event's data, with what tells interleaved messages apart."""
        if "id" not in event:
            event["id"] = self.message_id
        return dumps(event)[:-1] + self.tail


def _add_usage(total: dict[str, Any], piece: Any) -> None:
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        if key in piece:
            total[key] = total.get(key, 0) + piece[key]
    for key in ("input_token_details", "output_token_details"):
        if piece.get(key):
            total[key] = {**total.get(key, {}), **piece[key]}


def _start_metadata(response_metadata: dict[str, Any]) -> dict[str, Any]:
    named = (("provider", "model_provider"), ("model", "model_name"))
    return {ours: response_metadata[theirs] for ours, theirs in named if theirs in response_metadata}


class Messages:
    """The messages of a run."""

    def __init__(self) -> None:
        self._open: dict[Key, _Open] = {}
        self._failed: OrderedDict[Key, None] = OrderedDict()
        self.begun: OpenMessage | None = None
        """The message that begins with the first of the lines that were made last."""
        self.ended: list[OpenMessage] = []
        """The messages that end with the last of them; each with one of them for what failed."""

    def feed(
        self,
        namespace: tuple[str, ...],
        message: BaseMessage,
        metadata: dict[str, Any],
        llm_run: str | None,
        now_ms: int,
    ) -> list[Draft]:
        """The lines of one `messages` part."""
        self.begun = None
        self.ended.clear()
        if isinstance(message, AIMessageChunk):
            return self._chunk(namespace, message, metadata, llm_run, now_ms)
        return self._whole(namespace, message, metadata, llm_run, now_ms)

    def _chunk(
        self, namespace: tuple[str, ...], chunk: AIMessageChunk, metadata: dict[str, Any], llm_run: str | None,
        now_ms: int,
    ) -> list[Draft]:  # fmt: skip
        key = (namespace, llm_run or chunk.id or "")
        found = self._open.get(key)
        if found is not None and found.text is not None and (text := _plain_text(chunk, found.message_id)):
            before, behind = found.text
            found.pieces.append(text)
            return [(b'%b%b%b,"timestamp":%d%b' % (before, dumps(text), behind, now_ms, found.end), TEXT_X)]
        out: list[Draft] = []
        if found is None:
            found = _Open(namespace, chunk.id or llm_run or "", llm_run or chunk.id or "", metadata)
            if key in self._failed:
                return self._with_chunk(found, [], [], chunk, metadata, now_ms)
            self._open[key] = found
            start: dict[str, Any] = {"event": "message-start", "role": "ai", "id": found.message_id}
            if about := _start_metadata(chunk.response_metadata):
                start["metadata"] = about
            out.append(self._line(found, start, now_ms, encode_x(m=to_plain(metadata))))
            self.begun = found.opening
        events = self._chunk_events(found, chunk)
        if chunk.chunk_position == "last":
            events.extend(_finish_events(found))
            del self._open[key]
            self.ended.append(found.opening)
        return self._with_chunk(found, out, events, chunk, metadata, now_ms)

    def _with_chunk(
        self, found: _Open, out: list[Draft], events: list[dict[str, Any]], chunk: AIMessageChunk,
        metadata: dict[str, Any], now_ms: int,
    ) -> list[Draft]:  # fmt: skip
        """The lines of the chunk's events; the last of them carries the v1 chunk."""
        sparse = sparse_chunk(chunk, found.message_id)
        change = events[-1].get("delta") if events else None
        is_text = change is not None and change["type"] == "text-delta" and sparse == {"content": change["text"]}
        x_chunk: Any = 1 if is_text else sparse
        if not events:
            # Nothing for v2: the chunk rides on the message-start, or on a line of its own that v2 does not see.
            if out:
                start = out.pop()
                x = dumps({"m": to_plain(metadata), "c": x_chunk})
                return [*out, (start[0], b'\t,"x":%b}' % x)]
            data = found.data({"event": "chunk"})
            return [draft("messages", found.namespace, data, now_ms, node=found.node, x=encode_x(c=x_chunk),
                          v1_only=True)]  # fmt: skip
        for event in events[:-1]:
            out.append(self._line(found, event, now_ms, None))
        out.append(self._line(found, events[-1], now_ms, encode_x(c=x_chunk)))
        return out

    def _chunk_events(self, found: _Open, chunk: AIMessageChunk) -> list[dict[str, Any]]:
        found.gather_text()
        found.response_metadata.update(chunk.response_metadata)
        if chunk.additional_kwargs:
            found.additional_kwargs = merge_dicts(found.additional_kwargs, chunk.additional_kwargs)
        out: list[dict[str, Any]] = []
        for key, block in blocks.keyed_blocks(chunk):
            if key in found.blocks:
                index, state = found.blocks[key]
                blocks.grow(state, block)
            else:
                index = len(found.blocks)
                found.blocks[key] = (index, dict(block))
                out.append({"event": "content-block-start", "index": index, "content": blocks.begin(block)})
            if (change := blocks.delta_event(index, block)) is not None:
                out.append(change)
        if chunk.usage_metadata:
            _add_usage(found.usage, chunk.usage_metadata)
        if set(found.blocks) == {TEXT_KEY} and found.text is None:
            head = lines.head(lines.EVENT, "messages", found.namespace)
            opening = b'{"event":"content-block-delta","index":0,"delta":{"type":"text-delta","text":'
            found.text = (head + opening, b'},"id":%b' % dumps(found.message_id) + found.tail)
        return out

    def _line(self, found: _Open, event: dict[str, Any], now_ms: int, x: bytes | None) -> Draft:
        return draft("messages", found.namespace, found.data(event), now_ms, node=found.node, x=x)

    def _whole(
        self,
        namespace: tuple[str, ...],
        message: BaseMessage,
        metadata: dict[str, Any],
        llm_run: str | None,
        now_ms: int,
    ) -> list[Draft]:
        node = metadata.get("langgraph_node")
        found = _Open(namespace, message.id or "", llm_run or message.id or "", metadata)
        x = encode_x(m=to_plain(metadata), w=to_plain(message.model_dump()))
        if isinstance(message, ToolMessage) or message.type not in ("ai", "human", "system"):
            return [draft("messages", namespace, found.data({"event": "whole"}), now_ms, node=node, x=x, v1_only=True)]
        start: dict[str, Any] = {"event": "message-start", "role": message.type, "id": found.message_id}
        if about := _start_metadata(message.response_metadata):
            start["metadata"] = about
        events: list[dict[str, Any]] = [start]
        for index, (_, block) in enumerate(blocks.keyed_blocks(message)):
            events.append({"event": "content-block-start", "index": index, "content": blocks.begin(block)})
            if (change := blocks.delta_event(index, block)) is not None:
                events.append(change)
            events.append({"event": "content-block-finish", "index": index, "content": blocks.finish(block)})
        ending: dict[str, Any] = {"event": "message-finish"}
        if isinstance(message, AIMessage) and message.usage_metadata:
            ending["usage"] = dict(message.usage_metadata)
        if message.response_metadata:
            ending["metadata"] = dict(message.response_metadata)
        events.append(ending)
        self.begun = found.opening
        self.ended.append(found.opening)
        return [self._line(found, e, now_ms, x if e is ending else None) for e in events]

    def calls_in(self, namespace: tuple[str, ...], task: str | None = None) -> list[str]:
        """The model calls of the messages that are open in a namespace, or in one task (`<name>:<id>`) of it."""
        return [
            found.llm_run
            for found in self._open.values()
            if found.namespace == namespace and (task is None or found.task == task)
        ]

    def fail(self, llm_run: str | None, text: str, now_ms: int) -> list[Draft]:
        """End open messages with an `error` event: those of one model call, or all of them.

        What still comes of them is for v1 alone.
        """
        out: list[Draft] = []
        self.begun = None
        self.ended.clear()
        for key, found in list(self._open.items()):
            if llm_run is None or found.llm_run == llm_run:
                out.append(self._line(found, {"event": "error", "message": text}, now_ms, None))
                self.ended.append(found.opening)
                del self._open[key]
                self._failed[key] = None
                if len(self._failed) > MODEL_CALLS_REMEMBERED_MAX:
                    self._failed.popitem(last=False)
        return out


def _plain_text(chunk: AIMessageChunk, message_id: str) -> str | None:
    """The text of a chunk that carries nothing else."""
    content = chunk.content
    if (
        type(content) is not str
        or chunk.id != message_id
        or chunk.chunk_position is not None
        or chunk.tool_call_chunks
        or chunk.additional_kwargs
        or chunk.response_metadata
        or chunk.usage_metadata is not None
        or chunk.name is not None
    ):
        return None
    return content


def _finish_events(found: _Open) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [
        {"event": "content-block-finish", "index": index, "content": blocks.finish(block)}
        for index, block in found.blocks.values()
    ]
    ending: dict[str, Any] = {"event": "message-finish"}
    if found.usage:
        ending["usage"] = found.usage
    if found.response_metadata:
        ending["metadata"] = found.response_metadata
    if found.additional_kwargs:
        ending["additional_kwargs"] = found.additional_kwargs
    return [*out, ending]
