"""The tree of a run (`agent.getTree`): its graph and the subgraphs that it called, from its lifecycle events."""

from contextlib import aclosing
from typing import Any, Final

import msgspec

from slipstream_api.access import Watch
from slipstream_api.context import Context
from slipstream_api.following import until_caught_up
from slipstream_postgres import runs as rows
from slipstream_schemas import lines
from slipstream_schemas import run_state as rs
from slipstream_schemas.channels import ChannelFilter
from slipstream_schemas.errors import NotFound
from slipstream_schemas.limits import TREE_NODES_MAX
from slipstream_schemas.seq import last_of, pack

OVER: Final = frozenset({"completed", "failed", "interrupted"})
Namespace = tuple[str, ...]


class Node(msgspec.Struct):
    """A graph that ran at a namespace."""

    namespace: Namespace
    status: str
    graph_name: str

    def entry(self) -> dict[str, Any]:
        """`{namespace, status}`."""
        return {"namespace": self.namespace, "status": self.status}


class RunView(msgspec.Struct):
    """What the log says of a run now: behind the cursor `begins_at` lies its first event."""

    nodes: dict[Namespace, Node]
    begins_at: int
    is_whole: bool = True
    cursor: int | None = None
    """The seq of the event that was asked for, None if it is not there."""

    def tree(self) -> dict[str, Any]:
        """The tree, root first; a tree of too many nodes is cut and says so."""
        made: dict[Namespace, dict[str, Any]] = {}
        for namespace in sorted(self.nodes, key=len):
            node = self.nodes[namespace]
            made[namespace] = {**node.entry(), "graph_name": node.graph_name, "children": []}
            if namespace and namespace[:-1] in made:
                made[namespace[:-1]]["children"].append(made[namespace])
        root = made[()]
        return root if self.is_whole else {**root, "metadata": {"truncated": True}}


async def run_of_thread(context: Context, thread_id: str) -> tuple[str, str, int]:
    """`(run_id, graph_id, log_seq)` of the run that runs, waits, or was the last. Raises: NotFound, Unavailable."""
    state = rs.existing((await context.control.head(context.scope, thread_id)).state)
    active = state.running or (state.pending[0] if state.pending else None)
    if active is not None:
        return active.run_id, active.graph_id, active.log_seq
    last = await context.threads.last(context.scope, thread_id)
    if last is None:
        raise NotFound("The thread has no run.")
    return await run_of_id(context, thread_id, last.header.run_id)


async def run_of_id(context: Context, thread_id: str, run_id: str) -> tuple[str, str, int]:
    """`(run_id, graph_id, log_seq)` of a run; its graph is named by its events. Raises: NotFound, Unavailable."""
    place = await rows.place(context.database, context.scope.tenant, run_id)
    if place is None or place.thread_id != thread_id:
        raise NotFound("The thread has no such run.")
    return run_id, "", place.log_seq


async def view(
    context: Context, thread_id: str, watch: Watch, run_id: str | None, event_id: str | None = None
) -> RunView:
    """Read a run from the log, and find one of its events. Raises: NotFound, Unavailable."""
    found = await (run_of_thread(context, thread_id) if run_id is None else run_of_id(context, thread_id, run_id))
    known, graph_id, log_seq = found
    out = RunView({(): Node((), "started", graph_id)}, last_of(log_seq))
    wanted = None if event_id is None else b'"event_id":%b' % msgspec.json.encode(event_id)
    chosen = ChannelFilter(frozenset({"lifecycle"}))
    async with aclosing(until_caught_up(context, thread_id, out.begins_at, watch)) as records:
        async for record in records:
            if record.header.run_id != known:
                continue
            for number, line in enumerate(record.lines):
                if wanted is not None and wanted in line:
                    out.cursor = pack(record.stream_seq, number)
                if chosen.matches(line):
                    _take(out, lines.decode_line(line))
            if out.nodes[()].status in OVER:
                break
    return out


def _take(out: RunView, event: lines.LineView) -> None:
    node = out.nodes.get(event.namespace)
    if node is not None:
        node.status, node.graph_name = event.data["event"], event.data.get("graph_name", node.graph_name)
    elif len(out.nodes) < TREE_NODES_MAX:
        out.nodes[event.namespace] = Node(event.namespace, event.data["event"], event.data.get("graph_name", ""))
    else:
        out.is_whole = False
