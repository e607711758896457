"""What clients send: the bodies of protocol v2. Unknown keys are ignored, as the stock servers do."""

from typing import Any

import msgspec


class EventStreamRequest(msgspec.Struct):
    """Body of `POST /threads/{thread_id}/stream/events`."""

    channels: list[str]
    namespaces: list[list[str]] | None = None
    depth: msgspec.UnsetType | int | None = msgspec.UNSET
    since: msgspec.UnsetType | int | None = msgspec.UNSET


class CommandEnvelope(msgspec.Struct):
    """Body of `POST /threads/{thread_id}/commands`."""

    id: int
    method: str
    params: dict[str, Any] = {}


class RunStartParams(msgspec.Struct):
    """Parameters of `run.start`."""

    assistant_id: str
    input: Any = None
    config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    multitask_strategy: str | None = msgspec.field(default=None, name="multitaskStrategy")
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None


class RespondEntry(msgspec.Struct):
    """One answer to one interrupt."""

    interrupt_id: str
    response: Any
    namespace: list[str] = []


class SendTo(msgspec.Struct):
    """A node to go to, with an input of its own."""

    node: str
    input: Any = None


class InputRespondParams(msgspec.Struct):
    """Parameters of `input.respond`: one answer, or several in `responses`."""

    interrupt_id: str | None = None
    namespace: list[str] = []
    response: Any = msgspec.UNSET
    responses: list[RespondEntry] | None = None
    update: dict[str, Any] | None = None
    goto: str | SendTo | list[str | SendTo] | None = None
    config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class SubscribeParams(EventStreamRequest):
    """Parameters of `subscription.subscribe`: what the body of a stream says."""


class UnsubscribeParams(msgspec.Struct):
    """Parameters of `subscription.unsubscribe`."""

    subscription_id: str


class ReconnectParams(msgspec.Struct):
    """Parameters of `subscription.reconnect`. `last_event_id` is an `event_id`, or a `seq` as text."""

    run_id: str
    last_event_id: str | None = None
    subscriptions: list[str] = []


class GetTreeParams(msgspec.Struct):
    """Parameters of `agent.getTree`."""

    run_id: str | None = None


class StateGetParams(msgspec.Struct):
    """Parameters of `state.get`."""

    namespace: list[str] = []
    keys: list[str] | None = None


class ListCheckpointsParams(msgspec.Struct):
    """Parameters of `state.listCheckpoints`."""

    namespace: list[str] | None = None
    limit: int = 10
    before: str | None = None


class StateForkParams(msgspec.Struct):
    """Parameters of `state.fork`."""

    checkpoint_id: str
    input: Any = None
    config: dict[str, Any] | None = None
