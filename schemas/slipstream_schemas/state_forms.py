"""A state in its two forms: as protocol v1 dumps it, and as protocol v2 shows it.

The v2 form drops `__interrupt__` and slims messages: blocks are normalised, empty fields and everything but the fields
of the protocol left out. The log stores the v2 form, which is sent as it lies there, and a patch that says where
messages stand and what they lost, so that `to_v1(*to_v2(state)) == state` holds for every plain state.

A patch is a list of `[path, extra]`. `extra` is `0` when the v1 message follows from the v2 one by its defaults, and
else the whole v1 message.
"""

from typing import Any, Final

INTERRUPT: Final = "__interrupt__"
_TYPES: Final = {"human": "human", "user": "human", "ai": "ai", "assistant": "ai", "system": "system", "tool": "tool",
                 "function": "function"}  # fmt: skip
_STANDARD_BLOCKS: Final = frozenset(
    [
        "text",
        "reasoning",
        "image",
        "video",
        "audio",
        "file",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "non_standard",
        "text-plain",
    ]
)
_KEPT: Final = ("name", "example", "response_metadata")

Patch = list[Any]


def is_message(value: object) -> bool:
    """Whether a plain value is a dumped message."""
    return isinstance(value, dict) and value.get("type") in _TYPES and "content" in value  # pyright: ignore[reportUnknownMemberType]


def normalise_block(block: Any) -> Any:
    """A content block of a provider in the protocol's shape."""
    if not isinstance(block, dict) or "type" not in block or block["type"] in _STANDARD_BLOCKS:
        return block  # pyright: ignore[reportUnknownVariableType]
    known: dict[str, Any] = block  # pyright: ignore[reportUnknownVariableType]
    if known["type"] == "image_url":
        image = known.get("image_url")
        return {"type": "image", "url": image.get("url") if isinstance(image, dict) else image}  # pyright: ignore[reportUnknownMemberType]
    if known["type"] == "input_audio":
        audio = known.get("input_audio")
        if isinstance(audio, dict):
            return {"type": "audio", "base64": audio.get("data"), "mime_type": f"audio/{audio.get('format', 'wav')}"}  # pyright: ignore[reportUnknownMemberType]
    return {"type": "non_standard", "value": known}


def slim_message(message: dict[str, Any]) -> dict[str, Any]:
    """The v2 form of a message."""
    kind = _TYPES[message["type"]]
    content = message["content"]
    out: dict[str, Any] = {
        "type": kind,
        "content": [normalise_block(block) for block in content] if isinstance(content, list) else content,
    }
    if message.get("id") is not None:
        out["id"] = message["id"]
    out.update((key, message[key]) for key in _KEPT if message.get(key))
    if kind == "tool":
        out.update((key, message[key]) for key in ("tool_call_id", "status", "artifact") if key in message)
    elif kind == "ai":
        out.update((key, message[key]) for key in ("tool_calls", "invalid_tool_calls") if message.get(key))
    return out


def full_message(slim: dict[str, Any]) -> dict[str, Any]:
    """The v1 message that a slim one stands for when nothing else was lost."""
    out: dict[str, Any] = {
        "content": slim["content"],
        "additional_kwargs": {},
        "response_metadata": slim.get("response_metadata", {}),
        "type": slim["type"],
        "name": slim.get("name"),
        "id": slim.get("id"),
    }
    if slim["type"] == "ai":
        out.update(
            tool_calls=slim.get("tool_calls", []),
            invalid_tool_calls=slim.get("invalid_tool_calls", []),
            usage_metadata=None,
        )
    elif slim["type"] == "tool":
        out.update((key, slim[key]) for key in ("tool_call_id", "artifact", "status") if key in slim)
    return out


def to_v2(state: Any) -> tuple[Any, Patch | None]:
    """The v2 form of a plain v1 state and the patch that leads back; no patch when they are the same."""
    patch: Patch = []
    if isinstance(state, dict) and INTERRUPT in state:
        patch.append([[INTERRUPT], state[INTERRUPT]])  # pyright: ignore[reportUnknownMemberType]
        state = {key: value for key, value in state.items() if key != INTERRUPT}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    slim = _slim(state, [], patch)
    return slim, patch or None


def _slim(value: Any, path: list[Any], patch: Patch) -> Any:
    if isinstance(value, dict):
        if path and isinstance(path[-1], int) and is_message(value):
            slim = slim_message(value)  # pyright: ignore[reportUnknownArgumentType]
            patch.append([list(path), 0 if full_message(slim) == value else value])
            return slim
        return {key: _slim(item, [*path, key], patch) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_slim(item, [*path, number], patch) for number, item in enumerate(value)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return value


def to_v1(state: Any, patch: Patch | None) -> Any:
    """The v1 form; `state` is changed in place and returned."""
    for path, extra in patch or ():
        if path == [INTERRUPT]:
            state[INTERRUPT] = extra
            continue
        holder = state
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = full_message(holder[path[-1]]) if extra == 0 else extra
    return state
