"""Message chunks of protocol v1: filling in defaults, and gathering chunks into the message so far."""

import json
from typing import Any

CHUNK_DEFAULTS: dict[str, Any] = {
    "content": "", "additional_kwargs": {}, "response_metadata": {}, "type": "AIMessageChunk", "name": None, "id": None,
    "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None, "tool_call_chunks": [], "chunk_position": None,
}  # fmt: skip


def full_chunk(sparse: dict[str, Any], message_id: str) -> dict[str, Any]:
    """A chunk with every field, in the order of the v1 dump."""
    return {**CHUNK_DEFAULTS, "id": message_id, **sparse}


def merge(held: Any, piece: Any) -> Any:
    """Two values of the same field of successive chunks."""
    if held is None or held in ("", [], {}):
        return piece
    if piece is None:
        return held
    if isinstance(held, str) and isinstance(piece, str):
        return held + piece
    if isinstance(held, bool) or isinstance(piece, bool):
        return piece
    if isinstance(held, int) and isinstance(piece, int):
        return held + piece
    if isinstance(held, dict) and isinstance(piece, dict):
        return _merge_dicts(held, piece)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(held, list) and isinstance(piece, list):
        return _merge_lists(held, piece)  # pyright: ignore[reportUnknownArgumentType]
    return piece


def _merge_dicts(held: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    out = dict(held)
    for key, value in piece.items():
        # Identity fields arrive whole, so they replace.
        same = key in ("id", "type", "index", "name", "model_name", "model_provider") and out.get(key)
        out[key] = (value or out[key]) if same else merge(out.get(key), value)
    return out


def _merge_lists(held: list[Any], piece: list[Any]) -> list[Any]:
    out = list(held)
    for item in piece:
        index = item.get("index") if isinstance(item, dict) else None
        at = next((n for n, known in enumerate(out) if isinstance(known, dict) and known.get("index") == index), -1)
        if index is None or at < 0:
            out.append(item)
        else:
            out[at] = _merge_dicts(out[at], item)
    return out


def gather(held: dict[str, Any] | None, chunk: dict[str, Any]) -> dict[str, Any]:
    """The message so far and one more chunk."""
    if held is None:
        return dict(chunk)
    out = dict(held)
    for key in ("content", "additional_kwargs", "response_metadata", "usage_metadata", "tool_call_chunks"):
        out[key] = merge(held.get(key), chunk.get(key))
    return out


def parse_partial(text: str) -> dict[str, Any] | None:
    """The object that an unfinished JSON text has so far, None when nothing can be said yet."""
    stack: list[str] = []
    inside = escaped = False
    for character in text:
        if inside:
            inside, escaped = (inside, False) if escaped else (character != '"', character == "\\")
        elif character == '"':
            inside = True
        elif character in "{[":
            stack.append("}" if character == "{" else "]")
        elif character in "}]" and stack:
            stack.pop()
    candidate = text + ('"' if inside else "") + "".join(reversed(stack))
    for _ in range(len(text) + 1):
        try:
            parsed = json.loads(candidate)
        except ValueError:
            text = text[:-1]
            if not text:
                return None
            return parse_partial(text)
        return parsed if isinstance(parsed, dict) else None
    return None


def as_message(gathered: dict[str, Any]) -> dict[str, Any]:
    """The gathered chunks as a whole `ai` message, its tool calls parsed as far as they go."""
    calls: list[dict[str, Any]] = []
    for piece in gathered.get("tool_call_chunks") or ():
        arguments = parse_partial(piece.get("args") or "") or {}
        if piece.get("name"):
            calls.append({"name": piece["name"], "args": arguments, "id": piece.get("id"), "type": "tool_call"})
    kept = ("content", "additional_kwargs", "response_metadata")
    return {
        **{key: gathered[key] for key in kept}, "type": "ai", "name": gathered.get("name"), "id": gathered["id"],
        "tool_calls": calls or gathered.get("tool_calls") or [], "invalid_tool_calls": [],
        "usage_metadata": gathered.get("usage_metadata"),
    }  # fmt: skip
