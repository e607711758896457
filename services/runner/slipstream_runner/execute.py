"""One attempt of one run: drive the graph, feed the translator, flush, and say how it ended."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Literal

import msgspec
from langgraph.errors import GraphBubbleUp

from slipstream_runner.checkpoints import FencedSaver
from slipstream_runner.extensions import Extensions, extensions_of
from slipstream_runner.flush import Flusher
from slipstream_runner.inputs import graph_input, run_config, run_context
from slipstream_runner.recover import opening_lines
from slipstream_runner.runtime import Attempt, Runtime, now_ms
from slipstream_runner.spans import traced
from slipstream_runner.translate import EXTENSION, MODES, LlmRuns, Translator, describe_error, for_log
from slipstream_schemas.errors import Corrupt, Fenced, SlipstreamError, TooLarge, Unavailable
from slipstream_schemas.limits import MESSAGE_BYTES_MAX, RECORD_FRAME_BYTES
from slipstream_schemas.terminal import TERMINAL_INTERRUPTS_MAX, requested_lines

log = logging.getLogger("slipstream.runner")

HIDDEN_TAG = "langsmith:hidden"
"""LangGraph's own inner steps carry it."""
Part = tuple[tuple[str, ...], str, Any]
"""Namespace, stream mode, payload."""
Kind = Literal["success", "error", "timeout", "interrupted", "rollback", "release", "retry", "lost"]


class Outcome(msgspec.Struct):
    """How an attempt ended. `retry`: it goes on after a pause.

    `lost` means that it is no longer ours: say nothing, acknowledge nothing.
    """

    kind: Kind
    error: dict[str, str] | None = None


async def execute(runtime: Runtime, attempt: Attempt, flushers: set[Flusher]) -> tuple[Outcome, Translator]:
    """Run the graph to its end. Every line is in the log when this returns, unless the outcome is `lost`."""
    llm_runs = LlmRuns()
    payload_bytes_max = min(MESSAGE_BYTES_MAX, runtime.connection.payload_bytes_max)
    translator = Translator(attempt.number, llm_runs, payload_bytes_max - RECORD_FRAME_BYTES)
    flusher = Flusher(runtime, attempt, translator, await opening_lines(runtime, attempt))
    flushers.add(flusher)
    flushing = asyncio.create_task(flusher.run())
    # A log that refuses us ends the graph at once.
    flushing.add_done_callback(lambda task: _flush_failed(task, attempt))
    try:
        attempt.task = asyncio.create_task(_drive(runtime, attempt, translator, flusher, llm_runs))
        if attempt.stop is not None:
            attempt.task.cancel()
        outcome = await _outcome(runtime, attempt)
        if outcome.kind not in ("lost", "release", "retry"):
            _close(attempt, translator, outcome)
        flusher.close()
        return await _flushed(flushing, attempt, outcome), translator
    finally:
        flushers.remove(flusher)
        if not flushing.done():
            flushing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await flushing


def _flush_failed(task: asyncio.Task[None], attempt: Attempt) -> None:
    if not task.cancelled() and task.exception() is not None:
        attempt.cancel("fenced")


async def _flushed(flushing: asyncio.Task[None], attempt: Attempt, outcome: Outcome) -> Outcome:
    try:
        await flushing
        return outcome
    except Fenced as error:
        log.warning("run %s attempt %d: %s; stopping", attempt.run.run_id, attempt.number, error.message)
    except (Unavailable, Corrupt) as error:
        log.error("run %s attempt %d cannot be written: %s", attempt.run.run_id, attempt.number, error.message)
    except TooLarge as error:
        return Outcome("error", {"error": "TooLarge", "message": error.message})
    return Outcome("lost")


async def _drive(
    runtime: Runtime, attempt: Attempt, translator: Translator, flusher: Flusher, llm_runs: LlmRuns
) -> None:
    with traced(runtime.tracing, attempt.traceparent) as callbacks:
        config = run_config(attempt, [llm_runs, *callbacks])
        await _stream(runtime, attempt, config, translator, flusher)


async def _stream(
    runtime: Runtime, attempt: Attempt, config: dict[str, Any], translator: Translator, flusher: Flusher
) -> None:
    run = attempt.run
    saver = FencedSaver(
        runtime.checkpoints, attempt.scope, attempt.thread_id, attempt.fence, flusher.stored,
        lambda: attempt.cancel("outage"),
    )  # fmt: skip
    async with (
        runtime.stores.for_graph(attempt.scope.tenant) as store,
        runtime.graphs.use(run.graph_id, config, saver, store) as graph,
    ):
        options: dict[str, Any] = {"durability": run.durability}
        context = run_context(graph.context_schema, run.context)
        if context is not None:
            options["context"] = context
        for name, value in (("interrupt_before", run.interrupt_before), ("interrupt_after", run.interrupt_after)):
            if value:
                options[name] = value
        given = graph_input(attempt, attempt.checkpoint_id, attempt.null_writes)
        stream = (_with_events if "events" in run.stream_modes else _without_events)(graph, given, config, options)
        extensions = extensions_of(graph)
        if extensions is not None:
            stream = _extended(stream, extensions, translator)
        async with contextlib.aclosing(stream) as parts:
            async for namespace, mode, payload in parts:
                translator.feed(namespace, mode, payload, now_ms())
                flusher.notify()
                if len(translator) > 0:
                    await flusher.room()
        translator.check()


async def _extended(
    stream: AsyncGenerator[Part], extensions: Extensions, translator: Translator
) -> AsyncGenerator[Part]:
    """The parts of a graph, and what its transformers make of each once it has been translated."""
    try:
        async with contextlib.aclosing(stream) as parts:
            async for namespace, mode, payload in parts:
                yield namespace, mode, payload
                if mode != "events":
                    await extensions.feed(namespace, mode, payload, translator.message_lines)
                for item in extensions.take():
                    yield (), EXTENSION, item
        await extensions.close()
        for item in extensions.take():
            yield (), EXTENSION, item
    except BaseException as error:  # a cancel too: their tasks must not outlive the run
        await extensions.fail(error)
        raise


def _without_events(graph: Any, given: Any, config: Any, options: dict[str, Any]) -> AsyncGenerator[Part]:
    stream: AsyncGenerator[Part] = graph.astream(
        given, config, stream_mode=list(MODES), subgraphs=True, version="v1", **options
    )
    return stream


async def _with_events(graph: Any, given: Any, config: Any, options: dict[str, Any]) -> AsyncGenerator[Part]:
    """LangChain's own events besides: three times the work for each token, so only a run that asks for them pays it.

    The chunks of the graph itself are its parts; the first event is the graph's own start and names its run.
    """
    root: str | None = None
    stream = graph.astream_events(given, config, version="v2", stream_mode=list(MODES), subgraphs=True, **options)
    async with contextlib.aclosing(stream) as events:
        async for event in events:
            root = root or event["run_id"]
            if event["event"] == "on_chain_stream" and event["run_id"] == root:
                yield event["data"]["chunk"]
            elif HIDDEN_TAG not in event["tags"]:
                yield (), "events", event


async def _outcome(runtime: Runtime, attempt: Attempt) -> Outcome:
    assert attempt.task is not None
    limit = asyncio.timeout(runtime.settings.run_timeout_s)
    try:
        async with limit:
            await attempt.task
    except asyncio.CancelledError:
        if attempt.stop is None:
            raise
        return _stopped(attempt.stop)
    except TimeoutError as error:
        if limit.expired():
            text = f"the run did not end within {runtime.settings.run_timeout_s:.0f} s"
            return Outcome("timeout", {"error": "TimeoutError", "message": text})
        return Outcome("error", describe_error(error))
    except Fenced as error:
        log.warning("run %s attempt %d: %s; stopping", attempt.run.run_id, attempt.number, error.message)
        return Outcome("lost")
    except Unavailable as error:
        log.warning("run %s attempt %d is handed back: %s", attempt.run.run_id, attempt.number, error.message)
        return Outcome("retry")
    except GraphBubbleUp:
        return Outcome("success")
    except Exception as error:
        if attempt.stop is not None:
            return _stopped(attempt.stop)
        if isinstance(error, SlipstreamError):
            return Outcome("error", {"error": type(error).__name__, "message": error.message})
        log.info("run %s failed in its graph", attempt.run.run_id, exc_info=for_log(error))
        return Outcome("error", describe_error(error))
    return Outcome("success")


def _stopped(reason: str) -> Outcome:
    match reason:
        case "rollback":
            return Outcome("rollback")
        case "release":
            return Outcome("release")
        case "outage":
            return Outcome("retry")
        case "fenced" | "deleted":
            return Outcome("lost")
        case _:
            return Outcome("interrupted")


def _close(attempt: Attempt, translator: Translator, outcome: Outcome) -> None:
    """Close what is open in the words of the outcome, and tell the interrupts that the terminal record cannot hold."""
    if outcome.kind in ("error", "timeout"):
        error = outcome.error or {"error": "", "message": ""}
        translator.finish("failed", f"{error['error']}: {error['message']}", now_ms())
    elif outcome.kind == "success" and not translator.interrupts:
        translator.finish("completed", None, now_ms())
    else:
        translator.finish("interrupted", None, now_ms())
    if outcome.kind == "success":
        early = list(translator.interrupts.values())[:-TERMINAL_INTERRUPTS_MAX]
        translator.say(requested_lines(attempt.run.run_id, early, now_ms()))
