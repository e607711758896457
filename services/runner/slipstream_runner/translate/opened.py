"""What is open at the start of a record: the messages and subgraphs that have begun in the log and not ended there.

The translator is ahead of the log by what waits to be flushed, so what it has open itself says nothing of a record.
"""

import msgspec

from slipstream_schemas.record import OpenMessage, OpenState

Namespace = tuple[str, ...]
Thing = OpenMessage | Namespace
Call = tuple[Namespace, str, str]
"""Namespace, message id, model call: providers' ids may repeat."""


class Opened:
    """Beginnings and ends, noted with the lines that tell them and applied when those are taken for a record."""

    def __init__(self) -> None:
        self._changes: list[tuple[int, bool, Thing]] = []
        self._messages: dict[Call, OpenMessage] = {}
        self._namespaces: dict[Namespace, None] = {}

    def begin(self, line: int, thing: Thing) -> None:
        """The waiting line of that number begins a message or a subgraph."""
        self._changes.append((line, True, thing))

    def end(self, line: int, thing: Thing) -> None:
        """The waiting line of that number ends one."""
        self._changes.append((line, False, thing))

    def take_back(self, line: int) -> None:
        """The waiting lines from that number on are withdrawn."""
        self._changes = [change for change in self._changes if change[0] < line]

    def take(self, count: int) -> list[tuple[int, OpenMessage]]:
        """That many lines go to a record; which of them begin messages that stay open."""
        begun: dict[Call, tuple[int, OpenMessage]] = {}
        left: list[tuple[int, bool, Thing]] = []
        for line, begins, thing in self._changes:
            if line >= count:
                left.append((line - count, begins, thing))
            elif isinstance(thing, OpenMessage):
                key = _call_of(thing)
                if begins:
                    self._messages[key] = thing
                    begun[key] = (line, thing)
                else:
                    self._messages.pop(key, None)
                    begun.pop(key, None)
            elif begins:
                self._namespaces[thing] = None
            else:
                self._namespaces.pop(thing, None)
        self._changes = left
        return list(begun.values())

    def started_at(self, message: OpenMessage, seq: int) -> None:
        """A message-start was published at `seq`."""
        self._messages[_call_of(message)] = msgspec.structs.replace(message, seq=seq)

    def state(self) -> OpenState:
        """What is open behind the lines that were taken."""
        return OpenState(tuple(self._messages.values()), tuple(self._namespaces))


def _call_of(message: OpenMessage) -> Call:
    return message.namespace, message.message_id, message.llm_run_id
