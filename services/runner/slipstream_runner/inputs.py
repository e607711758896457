"""What a graph is called with: input or command, config, context."""

import dataclasses
from importlib.metadata import version
from typing import Any

from langgraph.types import Command, Send

from slipstream_runner.runtime import Attempt
from slipstream_schemas.users import User

LANGGRAPH_VERSION = version("langgraph")


def as_command(command: dict[str, Any]) -> "Command[Any]":
    """A command from its JSON: `goto` is a node, a `{node, input}`, or a list of them; pairs in `update` are tuples."""
    goto, update = command.get("goto"), command.get("update")
    fields: dict[str, Any] = {}
    if goto:
        fields["goto"] = [_goto(each) for each in goto] if isinstance(goto, list) else _goto(goto)
    if isinstance(update, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in update):
        fields["update"] = [tuple(pair) for pair in update]
    elif update is not None:
        fields["update"] = update
    if "resume" in command and command["resume"] is not None:
        fields["resume"] = command["resume"]
    return Command(**fields)


def _goto(target: Any) -> Any:
    return Send(target["node"], target.get("input")) if isinstance(target, dict) else target


def graph_input(attempt: Attempt, checkpoint_id: str | None, null_writes: int) -> Any:
    """The input of an attempt.

    A plain input is sent again: with the same run id LangGraph goes on where it stopped. A command is not, once what it
    writes is stored: sending it again would apply its update twice. Source: measured on langgraph 1.2.
    """
    run = attempt.run
    if not run.command:
        return run.input
    stored = (attempt.checkpoint_id, attempt.null_writes)
    before = attempt.state.running
    if attempt.number > 1 and before is not None and (before.checkpoint_id, before.null_writes) != stored:
        return None
    return as_command(run.command)


def run_context(schema: type[Any] | None, context: dict[str, Any] | None) -> dict[str, Any] | None:
    """The context that the graph is called with.

    A dataclass refuses keys that it does not have, and `configurable`, which is copied to the context, may hold any.
    """
    if context is None or schema is None or not dataclasses.is_dataclass(schema):
        return context
    names = {field.name for field in dataclasses.fields(schema) if field.init}
    return {key: value for key, value in context.items() if key in names} or None


def run_metadata(attempt: Attempt) -> dict[str, Any]:
    """The metadata of an attempt's checkpoints and messages."""
    run = attempt.run
    return {
        "created_by": "system",
        **(run.config.get("metadata") or {}),
        **run.metadata,
        "run_id": run.run_id,
        "thread_id": attempt.thread_id,
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        "user_id": run.user_id,
        "run_attempt": attempt.number,
        "langgraph_version": LANGGRAPH_VERSION,
    }


def _user(fields: dict[str, Any] | None) -> dict[str, Any]:
    """The caller as graphs see it; nothing without auth handlers."""
    if fields is None:
        return {}
    user = User(fields)
    permissions = user.permissions
    # The reference has the shorter name; applications of either kind find theirs.
    return {"langgraph_auth_user": user, "langgraph_auth_user_permissions": permissions,
            "langgraph_auth_permissions": permissions}  # fmt: skip


def run_config(attempt: Attempt, callbacks: list[Any]) -> dict[str, Any]:
    """The config that the graph runs with."""
    run = attempt.run
    configurable = {
        **run.config.get("configurable", {}),
        **(run.checkpoint or {}),
        "thread_id": attempt.thread_id,
        "run_id": run.run_id,
        "graph_id": run.graph_id,
        "assistant_id": run.assistant_id,
        "user_id": run.user_id,
        "langgraph_auth_user_id": run.user_id,
        "langgraph_request_id": run.request_id,
        **_user(run.user),
    }
    kept = {key: value for key, value in run.config.items() if key in ("tags", "recursion_limit", "max_concurrency")}
    return {**kept, "configurable": configurable, "metadata": run_metadata(attempt), "callbacks": callbacks,
            "run_name": run.graph_id}  # fmt: skip
