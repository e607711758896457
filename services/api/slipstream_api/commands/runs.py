"""Commands on runs: starting, answering, and what a run has called."""

from typing import Any

import msgspec

from slipstream_api import access, run_tree, runs
from slipstream_api.bodies import convert
from slipstream_api.commands.envelope import Call, Outcome, Refused
from slipstream_api.commands.state import check_checkpoint
from slipstream_api.context import Context
from slipstream_api.thread_rows import row_of
from slipstream_schemas import errors
from slipstream_schemas.answers import OpenInterrupt
from slipstream_schemas.commands import GetTreeParams, InputRespondParams, RunStartParams


async def run_start(call: Call) -> Outcome:
    """`run.start`: the thread is created if need be, and an interrupted one goes on."""
    start = convert(call.params, RunStartParams)
    body = runs.RunCreate(
        start.assistant_id, input=start.input, config=start.config, metadata=start.metadata,
        multitask_strategy=start.multitask_strategy, interrupt_before=start.interrupt_before,
        interrupt_after=start.interrupt_after,
    )  # fmt: skip
    created = await runs.resolve(call.context, call.thread_id, body, key=call.idempotency_key, creates_thread=True)
    known = await runs.repeated(call.context, created, call.idempotency_key)
    if known is not None:
        return _started(known)
    if (checkpoint_id := runs.forks_at(created)) is not None:
        await check_checkpoint(call, checkpoint_id)
    return _started(await runs.accept(call.context, created, resumes=True, is_watched=True))


def _started(accepted: runs.Accepted) -> Outcome:
    return Outcome({"run_id": accepted.run_id}, accepted.log_seq)


async def input_respond(call: Call) -> Outcome:
    """`input.respond`: a run that goes on with the answers. One of many concurrent ones wins."""
    respond = convert(call.params, InputRespondParams)
    answers = _answers(respond)
    command: dict[str, Any] = {"resume": {interrupt_id: value for interrupt_id, _, value in answers}}
    beside = {"update": respond.update, "goto": msgspec.to_builtins(respond.goto)}
    command.update({name: value for name, value in beside.items() if value is not None})
    graph_id = await _graph_of(call.context, call.thread_id)
    body = runs.RunCreate(graph_id, command=command, config=respond.config, metadata=respond.metadata)
    created = await runs.resolve(call.context, call.thread_id, body, key=call.idempotency_key)
    known = await runs.repeated(call.context, created, call.idempotency_key)
    if known is not None:
        return _started(known)
    expected = tuple(OpenInterrupt(interrupt_id, namespace) for interrupt_id, namespace, _ in answers)
    return _started(await runs.accept(call.context, created, expected))


def _answers(respond: InputRespondParams) -> list[tuple[str, tuple[str, ...], Any]]:
    if respond.responses is not None:
        answers = [(e.interrupt_id, tuple(e.namespace), e.response) for e in respond.responses]
    elif respond.interrupt_id is not None and respond.response is not msgspec.UNSET:
        answers = [(respond.interrupt_id, tuple(respond.namespace), respond.response)]
    else:
        text = "interrupt_id and response, or responses, are required"
        raise errors.InvalidArgument(text, ("body", "params"), "missing")
    if not answers or len({answer[0] for answer in answers}) != len(answers):
        raise errors.InvalidArgument("responses must name each interrupt once", ("body", "params", "responses"))
    return answers


async def _graph_of(context: Context, thread_id: str) -> str:
    """The assistant of the thread's last run. Raises: NoSuchInterrupt, Unavailable."""
    try:
        await access.thread(context, thread_id)
        row = await row_of(context, thread_id)
    except errors.NotFound as error:
        raise errors.NoSuchInterrupt("The thread does not exist.") from error
    known = msgspec.json.decode(row.metadata)
    found: str | None = known.get("assistant_id") or known.get("graph_id")
    if found is None:
        raise errors.NoSuchInterrupt("The thread has no run that could wait for an answer.")
    return found


async def get_tree(call: Call) -> Outcome:
    """`agent.getTree`: the graphs of a run, the newest one's if none is named."""
    asked = convert(call.params, GetTreeParams)
    watch = await access.thread(call.context, call.thread_id, "read", {"run_id": asked.run_id})
    view = await run_tree.view(call.context, call.thread_id, watch, asked.run_id)
    return Outcome({"tree": view.tree()})


async def input_inject(call: Call) -> Outcome:
    """`input.inject`: LangGraph cannot take input into a graph that runs."""
    raise Refused("not_supported", "LangGraph cannot take input into a running graph; start a run instead.")
