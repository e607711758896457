"""Content blocks of a message in the making: what to say when one begins, grows and ends.

The rules are those by which langchain-core turns chunks into protocol events; a test holds them equal. Known deviation
from the protocol's CDDL, shared with langchain-core: blocks of one message may be open at the same time, and all of
them finish when the message does.
"""

import json
from typing import Any, Final

from langchain_core.messages import AIMessageChunk, BaseMessage

Block = dict[str, Any]
_HEAVY: Final = frozenset({"args", "data", "output", "transcript", "value"})
_TOOL_CHUNKS: Final = frozenset({"tool_call_chunk", "server_tool_call_chunk"})


def keyed_blocks(message: BaseMessage) -> list[tuple[Any, Block]]:
    """The message's blocks, each under what identifies it across chunks: its `index`, or its type and position."""
    try:
        raw = message.content_blocks
    except Exception:  # noqa: BLE001
        # A provider's translator may fail on odd content; the chunk then carries nothing for v2.
        return []
    out: list[tuple[Any, Block]] = []
    for number, block in enumerate(raw):
        index = block.get("index")
        out.append((("", block.get("type"), number) if index is None else index, dict(block)))
    if not isinstance(message, AIMessageChunk):
        for invalid in getattr(message, "invalid_tool_calls", None) or ():
            known = {k: invalid[k] for k in ("id", "name", "args", "error") if invalid.get(k) is not None}
            out.append((("invalid", len(out)), {"type": "invalid_tool_call", **known}))
    return out


def begin(block: Block) -> Block:
    """The content of `content-block-start`: no payload, only what identifies the block."""
    kind = block.get("type", "text")
    if kind == "text":
        return {**{k: v for k, v in block.items() if k not in ("text", "index", "annotations")}, "text": ""}
    if kind == "reasoning":
        return {**{k: v for k, v in block.items() if k not in ("reasoning", "index")}, "reasoning": ""}
    if kind == "tool_call_chunk":
        out: Block = {"type": kind, "id": block.get("id"), "name": block.get("name"), "args": ""}
        return {**out, "index": block["index"]} if block.get("index") is not None else out
    if kind == "server_tool_call_chunk":
        known = {k: block[k] for k in ("id", "name", "index") if block.get(k) is not None}
        return {"type": kind, "args": "", **known}
    out = {k: v for k, v in block.items() if k not in _HEAVY}
    if kind in ("tool_call", "server_tool_call"):
        out["args"] = {}
    elif kind == "non_standard":
        out["value"] = {}
    return out


def delta(block: Block) -> Block | None:
    """The delta of a slice, None when it has none."""
    kind = block.get("type")
    if kind == "text":
        return {"type": "text-delta", "text": block["text"]} if block.get("text") else None
    if kind == "reasoning":
        return {"type": "reasoning-delta", "reasoning": block["reasoning"]} if block.get("reasoning") else None
    if kind in _TOOL_CHUNKS:
        return {"type": "tool-call-delta", "args": block["args"]} if block.get("args") else None
    if block.get("data"):
        out: Block = {"type": "data-delta", "data": block["data"]}
        if block.get("encoding") == "base64":
            out["encoding"] = "base64"
        return out
    return None


def delta_event(index: int, block: Block) -> Block | None:
    """The `content-block-delta` event of a slice, None when it has no delta.

    JavaScript SDKs up to 1.12 do not know `tool-call-delta`: their iterator of messages ends at the first one, and the
    open message never finishes. All of them take a slice from `content` where there is one, and Python reads `delta`
    alone, so a tool call's slice has both.
    """
    change = delta(block)
    if change is None:
        return None
    event: Block = {"event": "content-block-delta", "index": index, "delta": change}
    if change["type"] == "tool-call-delta":
        event["content"] = {"type": block["type"], "args": block["args"]}
    return event


def grow(state: Block, piece: Block) -> None:
    """Merge a slice into what its block has gathered."""
    kind = state.get("type")
    same = kind == piece.get("type")
    if same and kind in _TOOL_CHUNKS:
        state["args"] = (state.get("args") or "") + (piece.get("args") or "")
        state.update((k, piece[k]) for k in ("id", "name") if piece.get(k) is not None)
        return
    grown = "text" if kind == "text" else "reasoning" if kind == "reasoning" else "data" if "data" in piece else None
    if not same or grown is None:
        state.clear()
        state.update(piece)
        return
    state[grown] = (state.get(grown) or "") + (piece.get(grown) or "")
    for key, value in piece.items():
        if key in ("type", grown) or value is None:
            continue
        if key == "extras" and isinstance(value, dict):
            state["extras"] = {**(state.get("extras") or {}), **value}
        else:
            state[key] = value


def finish(block: Block) -> Block:
    """The content of `content-block-finish`: a tool call's gathered arguments are parsed."""
    kind = block.get("type")
    if kind not in _TOOL_CHUNKS:
        return block
    dropped = {"type", "id", "name", "args"} | ({"index"} if kind == "tool_call_chunk" else set())
    extras = {k: v for k, v in block.items() if k not in dropped and v is not None}
    raw = block.get("args") or "{}"
    try:
        parsed = json.loads(raw)
    except (json.JSONDecodeError, TypeError):
        return {"type": "invalid_tool_call", "id": block.get("id"), "name": block.get("name"), "args": raw,
                "error": "Failed to parse tool call arguments as JSON", **extras}  # fmt: skip
    finished = "tool_call" if kind == "tool_call_chunk" else "server_tool_call"
    return {"type": finished, "id": block.get("id") or "", "name": block.get("name") or "", "args": parsed, **extras}
