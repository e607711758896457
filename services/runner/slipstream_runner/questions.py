"""Questions about graphs, asked by the API over request and reply: user code never runs there."""

import msgspec

from slipstream_nats import rpc
from slipstream_runner import drawings
from slipstream_runner.pruning import PruneQuestion, keep_latest
from slipstream_runner.runtime import Runtime
from slipstream_runner.states import HistoryQuestion, StateQuestion, read_history, read_state
from slipstream_runner.updates import UpdateQuestion, update_state
from slipstream_schemas import subjects
from slipstream_schemas.codec import dumps
from slipstream_schemas.drawings import DrawingQuestion, GraphQuestion, SchemasQuestion, SubgraphsQuestion


class HasQuestion(msgspec.Struct, tag_field="ask", tag="has"):
    """Whether anybody has the graph; to be answered is the answer."""

    graph_id: str


Question = StateQuestion | HistoryQuestion | UpdateQuestion | PruneQuestion | HasQuestion | DrawingQuestion
_decode = msgspec.json.Decoder(Question).decode


async def serve(runtime: Runtime) -> None:
    """Answer questions on every graph of this runner. Raises: Unavailable."""

    async def answer(body: bytes) -> bytes:
        question: Question = _decode(body)
        match question:
            case HasQuestion():
                return b"true"
            case StateQuestion():
                return dumps(await read_state(runtime, question))
            case HistoryQuestion():
                return msgspec.json.encode(await read_history(runtime, question))
            case UpdateQuestion():
                return dumps(await update_state(runtime, question))
            case PruneQuestion():
                return dumps(await keep_latest(runtime, question))
            case GraphQuestion() | SchemasQuestion() | SubgraphsQuestion():
                return await drawings.answer(runtime.graphs, question)

    for graph_id in runtime.graphs.ids:
        await rpc.serve(runtime.connection, subjects.graph_rpc(runtime.settings.region, graph_id), answer, "runners")
