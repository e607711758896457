"""Which events a stream carries: the same as the stock SDK's own matcher says, with every difference named."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from langgraph_sdk.stream.subscription import matches_subscription

from slipstream_schemas.channels import CHANNELS, ChannelFilter, parse_channels
from slipstream_schemas.lines import decode_line, encode_line

NAMES = st.sampled_from(["progress", "cost", "päper", 'a"b', "a,b", "x:y"])
SEGMENTS = st.sampled_from(["team", "team:1", "team:2", "team:1:2", "te", "other", "other:1", "", ":1"])
NAMESPACES = st.lists(SEGMENTS, max_size=4)
METHODS = ("values", "updates", "messages", "tools", "lifecycle", "checkpoints", "tasks", "input.requested", "custom",
           "unheard_of")  # fmt: skip
PAYLOADS: st.SearchStrategy[Any] = st.sampled_from(
    [1, "text", {"name": "progress"}, {"name": "cost", "payload": 1}, [], None]
)

DIFFERENCES = {
    "input.responded": "ours: an addition on `input` that clients without a word for it ignore",
    "a method custom:<name>": "a user's own stream channel; the SDK knows it as an extension of its name alone",
    "depth without namespaces": "counted from the root, which the SDK's matcher leaves to the server",
}


@st.composite
def custom_data(draw: st.DrawFn) -> dict[str, Any]:
    """What a graph's stream writer wrote, as the runner puts it on the wire."""
    payload = draw(PAYLOADS)
    return {"name": draw(NAMES), "payload": payload} if draw(st.booleans()) else {"payload": payload}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A stream request as both sides take it."""
    channels = st.one_of(st.sampled_from(CHANNELS), NAMES.map("custom:{}".format))
    request: dict[str, Any] = {"channels": draw(st.lists(channels, min_size=1, max_size=4))}
    if draw(st.booleans()):
        request["namespaces"] = draw(st.lists(NAMESPACES, max_size=3))
    if request.get("namespaces") and draw(st.booleans()):
        request["depth"] = draw(st.integers(0, 4))
    return request


def ours(line: bytes, request: dict[str, Any]) -> bool:
    """The server's verdict."""
    namespaces = request.get("namespaces")
    prefixes = None if namespaces is None else [tuple(each) for each in namespaces]
    return ChannelFilter(parse_channels(request["channels"]), prefixes, request.get("depth")).matches(line)


def theirs(line: bytes, request: Any) -> bool:
    """The SDK's verdict on the same event."""
    view = decode_line(line)
    event: Any = {"method": view.method, "params": {"namespace": list(view.namespace), "data": view.data}}
    return matches_subscription(event, request)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(METHODS), NAMESPACES, custom_data(), requests())
@example("values", ["team:1"], {"payload": 1}, {"channels": ["values"], "namespaces": []})
@example("values", [], {"payload": 1}, {"channels": ["values"], "namespaces": [[]], "depth": 0})
def test_the_sdk_matches_the_same_events(
    method: str, namespace: list[str], data: dict[str, Any], request: dict[str, Any]
) -> None:
    line = encode_line(method, tuple(namespace), data, 1, "e", x={"v": 1})
    assert ours(line, request) == theirs(line, request)


def test_the_differences_are_these() -> None:
    responded = encode_line("input.responded", (), {"interrupt_id": "i"}, 1, "e")
    own = encode_line("custom:mine", (), {"payload": 1}, 1, "e")
    deep = encode_line("values", ("team:1", "inner:1"), {}, 1, "e")
    answers: dict[str, tuple[bytes, dict[str, Any], tuple[bool, bool]]] = {
        "input.responded": (responded, {"channels": ["input"]}, (True, False)),
        "a method custom:<name>": (own, {"channels": ["custom:mine"]}, (True, False)),
        "depth without namespaces": (deep, {"channels": ["values"], "depth": 1}, (False, True)),
    }
    assert answers.keys() == DIFFERENCES.keys()
    for line, request, verdicts in answers.values():
        assert (ours(line, request), theirs(line, request)) == verdicts
