"""What the API asks about a graph's shape, and the runner's answer. Both depend on the code and the config alone."""

from typing import Any

import msgspec


class GraphQuestion(msgspec.Struct, frozen=True, tag_field="ask", tag="graph"):
    """Nodes and edges. `xray` draws subgraphs too: all of them, or that many levels."""

    graph_id: str
    config: dict[str, Any]
    xray: bool | int = False


class SchemasQuestion(msgspec.Struct, frozen=True, tag_field="ask", tag="schemas"):
    """JSON schemas of input, output, state, config and context."""

    graph_id: str
    config: dict[str, Any]


class SubgraphsQuestion(msgspec.Struct, frozen=True, tag_field="ask", tag="subgraphs"):
    """Schemas of the subgraphs by their namespace; of one alone with `namespace`, of nested ones with `recurse`."""

    graph_id: str
    config: dict[str, Any]
    namespace: str | None = None
    recurse: bool = False


DrawingQuestion = GraphQuestion | SchemasQuestion | SubgraphsQuestion


class Drawing(msgspec.Struct, frozen=True):
    """An answer, and the version of the graph that gave it."""

    version: str
    answer: msgspec.Raw
