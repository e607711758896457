"""The translator of one attempt: parts in, drafts of lines out. Pure: no clock, no I/O."""

from collections.abc import Collection
from typing import Any, Final

from slipstream_runner.translate.drafts import Draft, draft, encode_x
from slipstream_runner.translate.errors import describe_error
from slipstream_runner.translate.llm_runs import LlmRuns
from slipstream_runner.translate.messages import Messages
from slipstream_runner.translate.opened import Opened
from slipstream_runner.translate.refusals import too_large, unserialisable
from slipstream_runner.translate.running_tasks import RunningTasks
from slipstream_schemas.codec import Unserialisable, dumps, dumps_bounded, to_plain
from slipstream_schemas.errors import Rejected
from slipstream_schemas.limits import INTERRUPTS_BYTES_MAX, LINE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_LINES_MAX
from slipstream_schemas.record import OpenMessage, OpenState
from slipstream_schemas.state_forms import INTERRUPT, to_v2
from slipstream_schemas.terminal import Interrupt

MODES: Final = ("values", "updates", "messages", "custom", "tasks", "checkpoints", "tools")
EXTENSION: Final = "extension"
"""Not a mode of LangGraph: `(channel, item)` from a graph's own stream transformers."""
VALUES_FRAME_BYTES: Final = 8192
"""What stands around the state in a line: a namespace above all."""
_CONFIG_KEYS: Final = ("checkpoint_id", "checkpoint_ns", "thread_id")
_NAMELESS: Final = frozenset({"values", "checkpoints"})
"""Modes that come of a subgraph before its first task and do not tell whose it is."""
UNFINISHED: Final = "nobody listened to the message's end"
Namespace = tuple[str, ...]


def _light_config(config: Any) -> dict[str, Any] | None:
    """The part of a checkpoint's config that clients may see: no auth, no callbacks."""
    if not config:
        return None
    configurable = config.get("configurable", {})
    return {"configurable": {k: configurable[k] for k in _CONFIG_KEYS if k in configurable}}


class Translator:
    """Turns what a graph streams into lines, and knows what is open.

    A part that no line can hold leaves no line and raises. A state is refused together with its checkpoint, so that it
    is known which one has to go: a thread that kept it would refuse every later run.
    """

    def __init__(self, attempt: int, llm_runs: LlmRuns, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._attempt = attempt
        self._llm_runs = llm_runs
        self._line_bytes_max = line_bytes_max
        self._refusal: Rejected | None = None
        self.refused: str | None = None
        """The root checkpoint that holds what was refused; empty when none does, None when nothing was refused."""
        self._messages = Messages()
        self._failing: dict[str, str] = {}
        self._drafts: list[Draft] = []
        self._part_begins = 0
        self._opened = Opened()
        self._held: dict[Namespace, tuple[bytes, bytes | None, Any]] = {}
        self._namespaces: dict[Namespace, str] = {}
        self._early: dict[Namespace, list[tuple[str, Any]]] = {}
        self._tool_calls: dict[str, str] = {}
        self._tasks = RunningTasks()
        self._asked: dict[str, Interrupt] = {}
        self._pending: set[str] = set()
        """The questions that the root waits for. A node that called two subgraphs at once waits for the first alone."""
        self._interrupts_bytes = 0
        self.next_nodes: tuple[str, ...] | None = None
        self._root_values: list[int] = []
        self._with_companion: list[int] = []
        """Checkpoints that refer to the values behind them."""
        self.values_seq = 0
        self.message_lines: list[Draft] = []
        """What was made of the newest part of `messages`."""

    def __len__(self) -> int:
        return len(self._drafts)

    @property
    def interrupts(self) -> dict[str, Interrupt]:
        """The questions that wait, by id."""
        return {id: asked for id, asked in self._asked.items() if id in self._pending}

    def feed(self, namespace: Namespace, mode: str, payload: Any, now_ms: int) -> None:
        """Take one part of the stream. Raises: TooLarge, Unserialisable, and then nothing more may be fed."""
        if self._refusal is not None and mode != "checkpoints":
            self.check()
        try:
            self._feed_bounded(namespace, mode, payload, now_ms)
        except Rejected as error:
            self._take_back()
            self._refusal = unserialisable(mode, error) if isinstance(error, Unserialisable) else error
            if mode != "values":
                is_state = mode == "checkpoints" and not namespace
                self.check(payload["config"]["configurable"]["checkpoint_id"] if is_state else "")

    def check(self, checkpoint_id: str = "") -> None:
        """Raises: TooLarge, Unserialisable for a state that was refused and had no checkpoint."""
        if self._refusal is not None:
            self.refused = checkpoint_id
            raise self._refusal

    def _feed_bounded(self, namespace: Namespace, mode: str, payload: Any, now_ms: int) -> None:
        self._feed(namespace, mode, payload, now_ms)
        for before, after in self._drafts[self._part_begins :]:
            size_bytes = len(before) + len(after or b"")
            if size_bytes > self._line_bytes_max:
                raise too_large(mode, payload, size_bytes, self._line_bytes_max)

    def _take_back(self) -> None:
        begun = self._part_begins
        del self._drafts[begun:]
        self._opened.take_back(begun)
        self._root_values = [line for line in self._root_values if line < begun]
        self._with_companion = [line for line in self._with_companion if line < begun]

    def _feed(self, namespace: Namespace, mode: str, payload: Any, now_ms: int) -> None:
        if namespace and namespace not in self._namespaces:
            if mode in _NAMELESS:
                self._early.setdefault(namespace, []).append((mode, payload))
                return
            self._start_namespace(namespace, now_ms, _agent_of(mode, payload))
        self._part_begins = len(self._drafts)
        if mode == "messages":
            self._feed_message(namespace, payload, now_ms)
            return
        if mode == "custom":
            self._drafts.append(draft("custom", namespace, _custom(payload), now_ms))
            return
        if mode == EXTENSION:
            name, item = payload
            data = b'{"name":%b,"payload":%b}' % (dumps(name), dumps(to_plain(item)))
            self._drafts.append(draft("custom", namespace, data, now_ms, x=b'{"s":true}'))
            return
        if mode == "events":
            self._drafts.append(draft("events", namespace, dumps(to_plain(payload)), now_ms, v1_only=True))
            return
        if mode == "checkpoints":
            self._feed_checkpoint(namespace, payload, now_ms)
            return
        self._release(namespace, now_ms)
        self._part_begins = len(self._drafts)
        if mode == "values":
            self._hold_values(namespace, payload, now_ms)
        elif mode == "updates":
            self._feed_update(namespace, payload, now_ms)
        elif mode == "tasks":
            self._feed_task(namespace, payload, now_ms)
        elif mode == "tools":
            self._drafts.append(draft("tools", namespace, dumps_bounded(payload), now_ms))

    def _end_failed_calls(self, now_ms: int) -> None:
        """End the messages of calls that had failed when this was asked before.

        A failure is heard at once, and what the call said before it may still wait in LangGraph's queue.
        """
        for run_id, text in self._failing.items():
            self._fail_messages(run_id, text, now_ms)
        self._failing = self._failed_calls()

    def _failed_calls(self) -> dict[str, str]:
        failed, self._llm_runs.failed[:] = list(self._llm_runs.failed), []
        return {
            run_id: UNFINISHED if isinstance(error, GeneratorExit) else f"{type(error).__name__}: the model call failed"
            for run_id, error in failed
        }

    def _end_messages_in(self, namespace: Namespace, task: str | None, now_ms: int) -> None:
        """A task or a subgraph is over, and so are its open messages: of calls that failed, or were not listened to."""
        calls = self._messages.calls_in(namespace, task)
        if calls:
            self._failing |= self._failed_calls()
        for run_id in calls:
            self._fail_messages(run_id, self._failing.pop(run_id, UNFINISHED), now_ms)

    def _fail_messages(self, llm_run: str | None, text: str, now_ms: int) -> None:
        told = self._messages.fail(llm_run, text, now_ms)
        for number, message in enumerate(self._messages.ended):
            self._opened.end(len(self._drafts) + number, message)
        self._drafts.extend(told)

    def _feed_message(self, namespace: Namespace, payload: Any, now_ms: int) -> None:
        message, metadata = payload
        if message.id is not None and not message.id.isascii():
            # It goes into headers, which are read by what takes no lone surrogates.
            message = message.model_copy(update={"id": to_plain(message.id)})
        run_id = self._llm_runs.run_of(metadata)
        self.message_lines = self._messages.feed(namespace, message, metadata, run_id, now_ms)
        if self._messages.begun is not None:
            self._opened.begin(len(self._drafts), self._messages.begun)
        self._drafts.extend(self.message_lines)
        for ended in self._messages.ended:
            self._opened.end(len(self._drafts) - 1, ended)

    # State

    def _hold_values(self, namespace: Namespace, payload: Any, now_ms: int) -> None:
        """Hold a state until its checkpoint came: clients expect the checkpoint before its companion values."""
        plain = to_plain(payload)
        if not namespace and isinstance(plain, dict) and INTERRUPT in plain:
            self._note_interrupts((), payload[INTERRUPT])
        state, patch = to_v2(plain)
        data, x = dumps(state), encode_x(p=patch)
        size_bytes = len(data) + len(x or b"")
        if size_bytes > self._line_bytes_max - VALUES_FRAME_BYTES:
            raise too_large("values", plain, size_bytes, self._line_bytes_max)
        if isinstance(plain, dict) and plain.keys() == {INTERRUPT}:
            # A question of a graph whose output is one channel: LangGraph yields it in the place of the state.
            self._drafts.append(draft("values", namespace, data, now_ms, x=x, v1_only=True))
        else:
            self._held[namespace] = (data, x, plain)

    def _release(self, namespace: Namespace, now_ms: int) -> None:
        held = self._held.pop(namespace, None)
        if held is not None:
            if not namespace:
                self._root_values.append(len(self._drafts))
            self._drafts.append(draft("values", namespace, held[0], now_ms, x=held[1]))

    def _feed_checkpoint(self, namespace: Namespace, payload: Any, now_ms: int) -> None:
        if self._refusal is not None:
            raise self._refusal
        config, metadata = payload["config"], payload.get("metadata") or {}
        parent = payload.get("parent_config")
        light: dict[str, Any] = {"id": config["configurable"]["checkpoint_id"]}
        if parent:
            light["parent_id"] = parent["configurable"]["checkpoint_id"]
        light.update(step=metadata.get("step"), source=metadata.get("source"))
        if not namespace:
            self.next_nodes = tuple(payload.get("next") or ())
        kept = {"config": _light_config(config), "parent_config": _light_config(parent), "metadata": metadata,
                "next": payload.get("next"), "tasks": payload.get("tasks")}  # fmt: skip
        values = to_plain(payload.get("values"))
        held = self._held.get(namespace)
        same = held is not None and _without_interrupt(held[2]) == values
        x = encode_x(c=to_plain(kept), v=1 if same else None, values=None if same else {"is": values})
        line = draft("checkpoints", namespace, dumps(light), now_ms, x=x)
        if held is not None and same:
            size_bytes = sum(map(len, (line[0], line[1] or b"", held[0], held[1] or b""))) + VALUES_FRAME_BYTES
            if size_bytes > self._line_bytes_max:
                raise too_large("checkpoints", payload, size_bytes, self._line_bytes_max)
            self._with_companion.append(len(self._drafts))
        self._drafts.append(line)
        self._release(namespace, now_ms)

    def _feed_update(self, namespace: Namespace, payload: Any, now_ms: int) -> None:
        if INTERRUPT in payload:
            self._note_interrupts(namespace, payload[INTERRUPT])
            data = dumps_bounded(payload)
            self._drafts.append(draft("updates", namespace, data, now_ms, v1_only=True))
            return
        metadata = payload.get("__metadata__")
        if metadata and metadata.get("cached") and self._attempt > 1:
            return
        for node, update in payload.items():
            if node == "__metadata__":
                continue
            state, patch = to_v2(to_plain(update))
            data = dumps({"node": node, "values": {} if state is None else state})
            x = encode_x(p=patch, n=True if state is None else None, d=to_plain(metadata))
            self._drafts.append(draft("updates", namespace, data, now_ms, node=node, x=x))

    def _note_interrupts(self, namespace: Namespace, interrupts: Any) -> None:
        for interrupt in interrupts:
            if not namespace:
                self._pending.add(interrupt.id)
            if interrupt.id not in self._asked:
                value = to_plain(interrupt.value)
                self._interrupts_bytes += len(dumps(value))
                if self._interrupts_bytes > INTERRUPTS_BYTES_MAX:
                    raise too_large("interrupt", value, self._interrupts_bytes, INTERRUPTS_BYTES_MAX)
                self._asked[interrupt.id] = Interrupt(interrupt.id, value, namespace)

    # Tasks and subgraphs

    def _feed_task(self, namespace: Namespace, payload: Any, now_ms: int) -> None:
        if "triggers" not in payload:
            task = f"{payload['name']}:{payload['id']}"
            self._end_messages_in(namespace, task, now_ms)
            self._end_subgraphs_of(namespace, task, payload, now_ms)
            for interrupt in payload.get("interrupts") or ():
                self._tie_interrupt(interrupt, payload["id"], namespace)
        else:
            self._tasks.begin(namespace, payload["name"], payload["id"])
            call = _tool_call_of(payload)
            if call is not None:
                self._tool_calls[payload["id"]] = call
        if isinstance(payload.get("error"), BaseException):
            payload = {**payload, "error": describe_error(payload["error"])}
        state, patch = to_v2(to_plain(payload))
        line = draft("tasks", namespace, dumps(state), now_ms, node=payload.get("name"), x=encode_x(p=patch))
        self._drafts.append(line)

    def _tie_interrupt(self, interrupt: Any, task_id: str, namespace: Namespace) -> None:
        found = interrupt if isinstance(interrupt, dict) else {"id": interrupt.id, "value": interrupt.value}
        if not namespace:
            self._pending.add(found["id"])
        known = self._asked.get(found["id"])
        # The root's task and that of a subgraph both report it; the thread row names the root's.
        if known is None or not known.task_id or not namespace:
            where = known.namespace if known is not None else namespace
            deepest = namespace if len(namespace) > len(where) else where
            self._asked[found["id"]] = Interrupt(found["id"], to_plain(found["value"]), deepest, task_id)

    def _start_namespace(self, namespace: Namespace, now_ms: int, agent: str | None = None) -> None:
        """Begin a subgraph with what came of it before its first task, which alone tells the name of an agent."""
        if len(namespace) > 1 and namespace[:-1] not in self._namespaces:
            self._start_namespace(namespace[:-1], now_ms)
        # A node's second call of a subgraph is numbered below its first one: what called it is above.
        called = next((each for each in reversed(namespace) if not each.isdecimal()), "")
        segment, _, task_id = called.partition(":")
        if not task_id:
            callers = self._tasks.callers(namespace)
            task_id = callers[0] if len(callers) == 1 else ""
        name = agent or segment
        data: dict[str, Any] = {"event": "started", "graph_name": name, "trigger_call_id": task_id}
        if task_id in self._tool_calls:
            data["cause"] = {"type": "toolCall", "tool_call_id": self._tool_calls[task_id]}
        self._namespaces[namespace] = name
        self._opened.begin(len(self._drafts), namespace)
        self._drafts.append(draft("lifecycle", namespace, dumps(data), now_ms))
        for mode, payload in self._early.pop(namespace, ()):
            self._feed_bounded(namespace, mode, payload, now_ms)

    def _start_early(self, task: str | None, now_ms: int) -> None:
        """Begin the subgraphs that have had no task and will have none: those that a task called, or all."""
        for namespace in [known for known in self._early if task is None or task in known]:
            if namespace in self._early:
                self._start_namespace(namespace, now_ms)

    def _end_subgraphs_of(self, namespace: Namespace, task: str, result: Any, now_ms: int) -> None:
        """A task is over, and so are the subgraphs that it called: the tasks of functional graphs stand in their path
        behind the entrypoint that called them, which is not in the namespace that tells the task's result."""
        self._start_early(task, now_ms)
        ended = {known for known in self._namespaces if task in known}
        ended.update(self._tasks.end(namespace, result["name"], result["id"], self._namespaces))
        if not ended:
            return
        if result.get("error"):
            status, error = "failed", _text_of(result["error"])
        else:
            status, error = ("interrupted" if result.get("interrupts") else "completed"), None
        self._close_namespaces(ended, status, error, now_ms)

    def _close_namespaces(self, ended: Collection[Namespace], status: str, error: str | None, now_ms: int) -> None:
        """End subgraphs and whatever is open below them, deepest first."""
        below = [known for known in self._namespaces if any(known[: len(each)] == each for each in ended)]
        for namespace in sorted(below, key=len, reverse=True):
            self._end_messages_in(namespace, None, now_ms)
            self._release(namespace, now_ms)
            data: dict[str, Any] = {"event": status, "graph_name": self._namespaces.pop(namespace)}
            if error is not None:
                data["error"] = error
            self._opened.end(len(self._drafts), namespace)
            self._drafts.append(draft("lifecycle", namespace, dumps(data), now_ms))

    # Flushing

    def finish(self, status: str, error: str | None, now_ms: int) -> None:
        """The run is over: release what is held, close what is open with `status` (and `error`)."""
        self._end_failed_calls(now_ms)
        self._end_failed_calls(now_ms)
        self._fail_messages(None, error or f"the run was {status}", now_ms)
        self._start_early(None, now_ms)
        for namespace in list(self._held):
            self._release(namespace, now_ms)
        self._close_namespaces([()], status, error, now_ms)

    def say(self, whole: list[bytes]) -> None:
        """Add lines that are whole already."""
        self._drafts.extend((line, None) for line in whole)

    def settle(self, now_ms: int) -> None:
        """Release held states: nothing else is coming for now."""
        self._end_failed_calls(now_ms)
        for namespace in list(self._held):
            self._release(namespace, now_ms)

    def drain(self) -> tuple[list[Draft], list[tuple[int, OpenMessage]], int]:
        """Up to a record's worth of lines, the messages that begin in them, the last root values line (-1: none)."""
        count = self._fitting()
        taken, self._drafts = self._drafts[:count], self._drafts[count:]
        starts = self._opened.take(count)
        values = [line for line in self._root_values if line < count]
        self._root_values = [line - count for line in self._root_values if line >= count]
        self._with_companion = [line - count for line in self._with_companion if line >= count]
        return taken, starts, values[-1] if values else -1

    def _fitting(self) -> int:
        """How many lines the next record holds. A checkpoint and its companion values share a record, however large."""
        size = count = 0
        for before, after in self._drafts[:RECORD_LINES_MAX]:
            size += len(before) + len(after or b"")
            if count and size > RECORD_BYTES_MAX:
                break
            count += 1
        if count - 1 not in self._with_companion:
            return count
        return count - 1 or 2

    def open_state(self) -> OpenState:
        """What is open at the start of the next record."""
        return self._opened.state()

    def started_at(self, message: OpenMessage, seq: int) -> None:
        """A message-start was published at `seq`."""
        self._opened.started_at(message, seq)


def _without_interrupt(state: Any) -> Any:
    return {k: v for k, v in state.items() if k != INTERRUPT} if isinstance(state, dict) else state


def _custom(payload: Any) -> bytes:
    if isinstance(payload, dict) and isinstance(payload.get("name"), str):
        return b'{"name":%b,"payload":%b}' % (dumps(payload["name"]), dumps_bounded(payload))
    return b'{"payload":%b}' % dumps_bounded(payload)


def _text_of(error: Any) -> str:
    if not isinstance(error, BaseException):
        return str(error)
    told = describe_error(error)
    return f"{told['error']}: {told['message']}"


def _tool_call_of(task: Any) -> str | None:
    """The tool call that a task serves. Agents give its input as the call beside their state, or as a list of calls.

    Source: langgraph.stream.transformers.
    """
    given = task.get("input")
    calls: list[Any] = given if isinstance(given, list) else [given.get("tool_call")] if isinstance(given, dict) else []
    for call in calls:
        if isinstance(call, dict) and call.get("type") == "tool_call" and isinstance(call.get("id"), str):
            return str(call["id"])
    return None


def _agent_of(mode: str, payload: Any) -> str | None:
    """The name of the agent that a subgraph is, from the metadata of its first task."""
    metadata = payload[1] if mode == "messages" else payload.get("metadata") if mode == "tasks" else None
    name = (metadata or {}).get("lc_agent_name")
    return name if isinstance(name, str) and name else None
