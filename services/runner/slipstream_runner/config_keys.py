"""The keys of `langgraph.json` and `aegra.json`: those that nobody here reads are named once, in the log."""

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

log = logging.getLogger("slipstream.runner")

READ: Final = frozenset({"dependencies", "graphs", "env", "auth", "http", "store", "encryption", "$schema"})
"""By the runner or by the API."""


def unread_keys(config: dict[str, Any]) -> list[str]:
    """The keys without effect, sorted."""
    return sorted(set(config) - READ)


def log_unread_keys(path: Path) -> None:
    """One line that names them, if there are any. The file has been read before."""
    unread = unread_keys(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    if unread:
        log.warning("%s: no effect here: %s", path.name, ", ".join(unread))
