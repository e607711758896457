"""Commands on a thread's state: reading it, listing its checkpoints, and running on from one of them."""

from typing import Any

import msgspec

from slipstream_api import access, runs, states
from slipstream_api.bodies import convert
from slipstream_api.commands.envelope import Call, Outcome, Refused
from slipstream_api.thread_rows import row_of
from slipstream_schemas.commands import ListCheckpointsParams, StateForkParams, StateGetParams
from slipstream_schemas.errors import InvalidArgument, NotFound, Rejected
from slipstream_schemas.state_forms import to_v2

CHECKPOINT_FIELDS = ["checkpoint", "checkpoint_id", "created_at", "metadata"]


def _namespace(segments: list[str]) -> str:
    return "|".join(segments)


async def get(call: Call) -> Outcome:
    """`state.get`: the values at a namespace, all or some of them, in the form of the `values` channel."""
    asked = convert(call.params, StateGetParams)
    where = states.Checkpoint(checkpoint_ns=_namespace(asked.namespace))
    await access.thread(call.context, call.thread_id)
    select = [f"values.{key}" for key in asked.keys] if asked.keys is not None else ["values"]
    try:
        raw = await states.get_state(call.context, call.thread_id, where, select=[*select, "checkpoint"])
    except (InvalidArgument, NotFound):
        raise
    except Rejected as error:
        raise Refused("no_such_namespace", error.message) from error
    state = _decoded(raw)
    found = state.get("checkpoint") or {}
    if asked.namespace and not found.get("checkpoint_id"):
        raise Refused("no_such_namespace", "Nothing is stored at that namespace.")
    values, _ = to_v2(state.get("values", {}))
    result: dict[str, Any] = {"values": values}
    if found.get("checkpoint_id"):
        result["checkpoint"] = {"id": found["checkpoint_id"], "ns": found.get("checkpoint_ns", "")}
    return Outcome(result)


async def list_checkpoints(call: Call) -> Outcome:
    """`state.listCheckpoints`: newest first; `before` is the id of the last one seen."""
    asked = convert(call.params, ListCheckpointsParams)
    await access.thread(call.context, call.thread_id)
    found = await states.history(
        call.context, call.thread_id, limit=asked.limit, before=asked.before,
        at=states.Checkpoint(checkpoint_ns=_namespace(asked.namespace or [])), select=CHECKPOINT_FIELDS,
    )  # fmt: skip
    return Outcome({"checkpoints": [_summary(_decoded(each)) for each in found]})


def _summary(state: dict[str, Any]) -> dict[str, Any]:
    metadata = state["metadata"] or {}
    return {
        "id": state["checkpoint_id"], "timestamp": state["created_at"], "step": metadata.get("step"),
        "metadata": metadata,
    }  # fmt: skip


async def check_checkpoint(call: Call, checkpoint_id: str) -> None:
    """Raises: Refused without such a checkpoint, where a run would begin with nothing, Unavailable."""
    try:
        where = states.Checkpoint(checkpoint_id=checkpoint_id)
        await states.get_state(call.context, call.thread_id, where, select=["checkpoint"])
    except NotFound as error:
        raise Refused("no_such_checkpoint", error.message) from error


async def fork(call: Call) -> Outcome:
    """`state.fork`: a run that goes on from a checkpoint, with input or as the graph would have gone on."""
    asked = convert(call.params, StateForkParams)
    await access.thread(call.context, call.thread_id)
    metadata = msgspec.json.decode((await row_of(call.context, call.thread_id)).metadata)
    assistant = metadata.get("assistant_id") or metadata.get("graph_id")
    await check_checkpoint(call, asked.checkpoint_id)
    if not isinstance(assistant, str):
        raise Refused("no_such_checkpoint", "The thread has no run whose checkpoints could be forked.")
    body = runs.RunCreate(assistant, input=asked.input, config=asked.config, checkpoint_id=asked.checkpoint_id)
    key = call.idempotency_key
    created = await runs.resolve(call.context, call.thread_id, body, key=key)
    accepted = await runs.repeated(call.context, created, key) or await runs.accept(call.context, created)
    return Outcome({"run_id": accepted.run_id, "thread_id": call.thread_id}, accepted.log_seq)


def _decoded(raw: Any) -> dict[str, Any]:
    state: dict[str, Any] = msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw
    return state
