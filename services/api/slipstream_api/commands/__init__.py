"""Protocol v2's commands, the same over HTTP and WebSocket."""

from typing import Final

from slipstream_api.commands import runs, state
from slipstream_api.commands.envelope import Answer, Call, Method, Outcome, Refused, envelope_of, execute, failure

__all__ = ["METHODS", "Answer", "Call", "Method", "Outcome", "Refused", "envelope_of", "execute", "failure"]


async def _socket_only(call: Call) -> Outcome:
    raise Refused("not_supported", "Subscriptions live on a WebSocket; over HTTP, POST to …/stream/events.")


METHODS: Final[dict[str, Method]] = {
    "run.start": runs.run_start,
    "input.respond": runs.input_respond,
    "input.inject": runs.input_inject,
    "agent.getTree": runs.get_tree,
    "state.get": state.get,
    "state.listCheckpoints": state.list_checkpoints,
    "state.fork": state.fork,
    "subscription.subscribe": _socket_only,
    "subscription.unsubscribe": _socket_only,
    "subscription.reconnect": _socket_only,
}
"""What HTTP answers; a WebSocket has methods of its own for its subscriptions."""
