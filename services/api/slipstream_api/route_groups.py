"""Which routes belong together, so that a group of them can be left out; and which paths are the server's own. Pure."""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final

META: Final = frozenset({"/openapi.json", "/info", "/metrics", "/docs"})
"""What `disable_meta` takes away. Health stays: whoever runs the process asks for it."""
AGENT_CARD: Final = "/.well-known/agent-card.json"
SHADOWABLE: Final = "/info"
"""A path of ours that the user's application may answer instead."""
_PARAMETER: Final = re.compile(r"\{[^}]*\}")


def groups_of(path: str) -> frozenset[str]:
    """The groups of a route. Streams and commands of a thread need threads and runs."""
    first, *rest = path.strip("/").split("/")
    if path in META:
        return frozenset({"meta"})
    if path == AGENT_CARD:
        return frozenset({"a2a"})
    if first != "threads":
        return frozenset({first})
    if "runs" in rest:
        return frozenset({"runs"})
    if "commands" in rest or "stream" in rest:
        return frozenset({"threads", "runs"})
    return frozenset({"threads"})


def enabled(handlers: Iterable[Any], disabled: Collection[str]) -> list[Any]:
    """The handlers that are served. Those of one handler's paths are in the same group."""
    return [each for each in handlers if not any(groups_of(path) & set(disabled) for path in each.paths)]


def own_paths(handlers: Iterable[Any]) -> re.Pattern[str]:
    """What the paths of the handlers look like, whatever the method."""
    paths = sorted({path for handler in handlers for path in handler.paths})
    patterns = ("[^/]+".join(re.escape(part) for part in _PARAMETER.split(path.rstrip("/"))) for path in paths)
    return re.compile(f"/*(?:{'|'.join(patterns)})/*")
