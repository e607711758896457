"""A graph's own stream transformers (`compile(transformers=…)`): what they push to a named channel becomes an event.

LangGraph runs them in its third way of streaming alone, which changes what models leave in the state. So they are
driven here, on a mux of their own, with what the graph streams in our way: parts as protocol events, messages as
content blocks. Transformers that come with LangGraph and LangChain are left out: their channels are derived already.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from langgraph.stream import ProtocolEvent, StreamTransformer
from langgraph.stream._mux import StreamMux

from slipstream_runner.translate import Draft
from slipstream_schemas import lines

Factory = Callable[[tuple[str, ...]], StreamTransformer]
CUSTOM = "custom:"


class _Mux(StreamMux):
    """Gathers what named channels forward instead of keeping a log that nobody reads."""

    def __init__(self, factories: list[Factory]) -> None:
        self.pushed: list[tuple[str, Any]] = []
        super().__init__(factories=factories, is_async=True)

    def _forward(self, method: str, item: Any) -> None:
        if method.startswith(CUSTOM):
            self.pushed.append((method.removeprefix(CUSTOM), item))


class Extensions:
    """The transformers of one run. What they raise fails the run, as it does in LangGraph."""

    def __init__(self, factories: list[Factory]) -> None:
        self._mux = _Mux(factories)

    async def feed(self, namespace: tuple[str, ...], mode: str, payload: Any, drafts: Sequence[Draft]) -> None:
        """Show a part of the stream, and for messages the lines that were made of it."""
        if mode == "messages":
            metadata = payload[1]
            for before, after in drafts:
                line = before if after is None else before + b'""}'
                found = lines.decode_prefix(lines.prefix(line))
                if found.kind == lines.EVENT and found.method == "messages":
                    data = msgspec.json.decode(line)["params"]["data"]
                    await self._mux.apush(_event(mode, found.namespace, (data, metadata)))
            return
        event = _event(mode, namespace, payload)
        if mode == "values" and isinstance(payload, dict):
            state: dict[str, Any] = payload
            event["params"]["data"] = {key: value for key, value in state.items() if key != "__interrupt__"}
            event["params"]["interrupts"] = tuple(state.get("__interrupt__", ()))
        await self._mux.apush(event)

    async def close(self) -> None:
        """The graph is through: wait for what the transformers still do."""
        await self._mux.aclose()

    async def fail(self, error: BaseException) -> None:
        """The graph failed."""
        await self._mux.afail(error)

    def take(self) -> list[tuple[str, Any]]:
        """`(channel, item)` of what was pushed since the last call."""
        pushed, self._mux.pushed = self._mux.pushed, []
        return pushed


def _event(method: str, namespace: tuple[str, ...], data: Any) -> ProtocolEvent:
    now_ms = time.time_ns() // 1_000_000
    return {
        "type": "event", "method": method,
        "params": {"namespace": list(namespace), "timestamp": now_ms, "data": data},
    }  # fmt: skip


def extensions_of(graph: Any) -> Extensions | None:
    """The transformers that a graph brings, None when it has none of its own."""
    own = [each for each in getattr(graph, "stream_transformers", ()) if not getattr(each(()), "_native", False)]
    return Extensions(own) if own else None
