"""Protocol v1's stream of a thread: the frames of its runs in their own modes, their ends, and posted states."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from slipstream_api.render.v1 import V1Renderer, sse
from slipstream_nats.tail import TailRecord
from slipstream_schemas.lines import decode_line
from slipstream_schemas.seq import pack
from slipstream_schemas.state_forms import to_v1

MODES: Final = ("run_modes", "lifecycle", "state_update")
RendererOf = Callable[[TailRecord], Awaitable[V1Renderer]]
"""How the run of a record is shown: in the modes that it was created with."""


class ThreadRenderer:
    """Renders the records of a thread, run by run. `known` as in `V1Renderer`."""

    def __init__(self, modes: frozenset[str], renderer_of: RendererOf, known: tuple[int, int] | None) -> None:
        self._modes = modes
        self._renderer_of = renderer_of
        self._known = known
        self._runs: dict[str, V1Renderer] = {}

    async def feed(self, record: TailRecord) -> bytes:
        """The frames of a record. Raises: what the renderer's maker raises."""
        if record.header.is_ahead:
            return b""
        if record.header.attempt == 0 and decode_line(record.lines[-1]).method != "lifecycle":
            return self._posted(record) if "state_update" in self._modes else b""
        if not self._modes & {"run_modes", "lifecycle"}:
            return b""
        run_id = record.header.run_id
        known = self._runs.get(run_id)
        if known is None:
            whole = "run_modes" in self._modes
            known = self._runs[run_id] = await self._renderer_of(record) if whole else V1Renderer(run_id, ())
            known.known = self._known
        shown = known.feed(record)
        if known.done:
            last = pack(record.stream_seq, len(record.lines) - 1)
            shown += sse("metadata", {"status": "run_done", "run_id": run_id}, str(last))
            del self._runs[run_id]
        return shown

    def _posted(self, record: TailRecord) -> bytes:
        out: list[bytes] = []
        checkpoint: Any = None
        for number in range(record.first_line, len(record.lines)):
            view = decode_line(record.lines[number])
            if view.method == "checkpoints":
                checkpoint = view.x["c"]["config"]
            elif view.method == "values" and not view.namespace:
                data = {"values": to_v1(view.data, (view.x or {}).get("p")), "config": checkpoint}
                out.append(sse("state_update", data, str(pack(record.stream_seq, number))))
        return b"".join(out)
