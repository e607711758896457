"""Questions about the shape of graphs, which a runner answers, and the answers that this process remembers."""

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from slipstream_nats import rpc
from slipstream_postgres import assistants
from slipstream_schemas import subjects
from slipstream_schemas.drawings import Drawing, DrawingQuestion
from slipstream_schemas.errors import Corrupt, NoResponder, Unavailable
from slipstream_schemas.limits import GRAPH_ANSWERS_BYTES_MAX

if TYPE_CHECKING:
    from slipstream_api.context import Context

_Key = tuple[str, bytes]


class Drawings:
    """Answers by the graph's version and the question, in bounded memory: the one unused for longest goes first."""

    def __init__(self, bytes_max: int = GRAPH_ANSWERS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._answers: OrderedDict[_Key, bytes] = OrderedDict()

    def get(self, version: str, question: bytes) -> bytes | None:
        """The remembered answer."""
        found = self._answers.get((version, question))
        if found is not None:
            self._answers.move_to_end((version, question))
        return found

    def put(self, version: str, question: bytes, answer: bytes) -> None:
        """Remember an answer."""
        self._drop((version, question))
        self._answers[version, question] = answer
        self._bytes += len(question) + len(answer)
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: _Key) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._bytes -= len(key[1]) + len(answer)


async def ask(context: "Context", question: DrawingQuestion) -> msgspec.Raw:
    """The answer's JSON. Raises: NotFound, InvalidArgument, Unavailable while no runner has the graph."""
    body = msgspec.json.encode(question)
    version = (await assistants.graph_versions(context.database)).get(question.graph_id, "")
    known = context.drawings.get(version, body)
    if known is not None:
        return msgspec.Raw(known)
    subject = subjects.graph_rpc(context.settings.region, question.graph_id)
    try:
        reply = await rpc.call(context.connection, subject, body)
    except NoResponder as error:
        raise Unavailable(f"no runner that has the graph {question.graph_id!r} is up") from error
    try:
        drawing = msgspec.json.decode(reply, type=Drawing)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"unreadable answer on {subject}") from error
    # Under the version of the runner that answered: while a new one is rolled out, that may be another.
    context.drawings.put(drawing.version, body, bytes(drawing.answer))
    return drawing.answer
