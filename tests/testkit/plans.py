"""Plans of graphs, drawn: see `graphs/planned.py`. Small parts first, so that what fails shrinks to little."""

from typing import Any, Final

from hypothesis import strategies as st

Plan = dict[str, Any]
Plans = st.SearchStrategy[Plan]

TEXTS: Final = ("", "a", "Hel", "lo wörld", " ", '"\\\n', "\u2028", "🦜")
VALUES: Final[tuple[Any, ...]] = (
    None, 0, True, 1.5, "x", "", [], [1], {}, {"a": 1}, {"name": "progress", "at": 1}, {"name": 3},
    {"name": ""}, {"name": "custom:x", "name2": None}, {"type": "ai", "content": "no message"},
    [{"type": "human", "content": "listed"}], {"__interrupt__": [1]}, {"event": "started"},
)  # fmt: skip

flag = st.booleans()


def _with(required: dict[str, Any], **optional: Any) -> Plans:
    return st.fixed_dictionaries({k: st.just(v) if isinstance(v, str) else v for k, v in required.items()},
                                 optional=optional)  # fmt: skip


def _call_pieces(index: int, call_id: str | None) -> list[Plan]:
    def piece(**fields: Any) -> Plan:
        base = {"name": None, "args": None, "id": None, "index": index, "type": "tool_call_chunk"}
        return {"tool_call_chunks": [{**base, **fields}]}

    return [piece(name="search", args="", id=call_id), piece(args='{"q": '), piece(args='"x"}')]


def _thinking(index: int) -> list[Plan]:
    return [{"content": [{"type": "reasoning", "reasoning": each, "index": index}]} for each in ("hm", " ok")]


pieces = st.one_of(
    st.lists(st.sampled_from(TEXTS).map(lambda text: {"content": text}), min_size=1, max_size=3),
    st.just(_call_pieces(0, "c1")),
    st.just([*_call_pieces(0, "c1"), *_call_pieces(1, "c2")]),
    st.just([{"content": "I look."}, *_call_pieces(0, "c1")]),
    st.just([*_thinking(0), {"content": [{"type": "text", "text": "so", "index": 1}]}]),
    st.just([{"content": "u", "usage_metadata": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}},
             {"content": "", "response_metadata": {"finish_reason": "stop"}}]),
    st.just([{"content": "one", "id": "fixed"}, {"content": " two", "id": "fixed"}]),
    st.just([{"content": "one", "id": "first"}, {"content": " two", "id": "second"}]),
    st.just([{"content": "t", "chunk_position": "last"}]),
)  # fmt: skip

say = _with(
    {"do": "say", "pieces": pieces},
    times=st.just(2), parallel=st.just(2), whole=st.just(True), nostream=st.just(True), kept=st.just(False),
    abandoned=st.just(True), fails=st.just(True), caught=st.just(True),
)  # fmt: skip
write = _with({"do": "write", "value": st.sampled_from(VALUES)})
give = _with(
    {"do": "give", "kind": st.sampled_from(["ai", "human", "tool", "system", "remove"])},
    id=st.sampled_from(["h", "g1", "g2"]), content=st.sampled_from(["x", ""]),
)  # fmt: skip
ask = _with({"do": "ask", "value": st.sampled_from(["why?", None, {"a": 1}])})
fails = st.sampled_from([{"do": "raise"}, {"do": "fail_once"}])
pause = st.just({"do": "pause"})
TOOL_NAMES: Final = ("plain", "aloud", "breaks", "commands", "asks", "delegates", "waits")


def acts(graphs: Plans | None) -> st.SearchStrategy[list[Plan]]:
    """What a node does."""
    kinds: list[Plans] = [say, write, give, say, ask, pause, fails]
    if graphs is not None:
        kinds.append(
            _with({"do": "call", "graph": graphs}, times=st.just(2), how=st.sampled_from(["astream", "gather"]),
                  caught=st.just(True))
        )  # fmt: skip
    return st.lists(st.one_of(kinds), max_size=3)


def nodes(graphs: Plans | None, *, is_root: bool) -> Plans:
    """A node. One of a subgraph may send its parent elsewhere."""
    more: dict[str, Any] = {} if is_root else {"up": st.just(True)}
    plain = _with(
        {"acts": acts(graphs)},
        sync=st.just(True), defer=st.just(True), retry=st.just(True), nothing=st.just(True), goto=st.just(True),
        commands=st.just(True), **more,
    )  # fmt: skip
    if graphs is None:
        return plain
    rounds = st.lists(st.lists(st.sampled_from(TOOL_NAMES), min_size=1, max_size=2), max_size=2)
    agent = _with({"agent": rounds}, name=st.just("helper"))
    return st.one_of(plain, _with({"graph": graphs}, defer=st.just(True), retry=st.just(True)), agent)


def steps(node: Plans) -> Plans:
    """One step of a graph."""
    return st.one_of(
        node,
        _with({"fan": st.lists(node, min_size=2, max_size=3)}),
        _with({"send": st.integers(1, 3), "node": node}),
        _with({"loop": st.integers(2, 3), "node": node}),
    )


options = st.sampled_from(
    [{"durability": "exit"}, {"durability": "sync"}, {"interrupt_before": "*"}, {"interrupt_after": "*"},
     {"interrupt_before": ["n1"]}, {"interrupt_after": ["n0", "n0a"]}]
)  # fmt: skip
"""Of a run."""


def graphs(depth: int, *, is_root: bool = False) -> Plans:
    """A graph with subgraphs, that many levels deep."""
    inner = graphs(depth - 1) if depth > 1 else None
    node = nodes(inner, is_root=is_root)
    more: dict[str, Any] = {"keep": st.just(True)}
    if is_root:
        more = {"transformers": st.just(True), "options": options}
    drawn = _with({"steps": st.lists(steps(node), min_size=1, max_size=3)}, **more)
    functional = _with(
        {"tasks": st.lists(_with({"acts": acts(inner)}), min_size=1, max_size=3)}, parallel=st.just(True)
    )
    return st.one_of(drawn, drawn, drawn, functional)


plans: Final = graphs(3, is_root=True)
