"""What the log holds of a thread, read from the broker, and what must hold of it whatever clients have seen."""

from typing import Any, NamedTuple

import msgspec

from simulation.world import World
from slipstream_nats.controllog import Head
from slipstream_nats.stored import next_of_subject
from slipstream_schemas import run_state as rs
from slipstream_schemas import subjects
from slipstream_schemas.lines import LineView, decode_line, is_event
from slipstream_schemas.record import Record
from slipstream_schemas.seq import pack, unpack
from slipstream_schemas.state_updates import StateUpdated

ROOT_ENDS = frozenset({"completed", "failed", "interrupted"})


class End(NamedTuple):
    """How a run ended, by the control log; `rolled` ones leave no row."""

    status: str
    attempt: int = 0
    values_seq: int = 0
    rolled: bool = False
    error: dict[str, str] | None = None


class ThreadHistory:
    """The transitions of a thread behind its last tombstone, and its records."""

    def __init__(
        self, head: Head, transitions: list[tuple[int, rs.Transition]], records: list[Record], left: int
    ) -> None:
        self.head, self.transitions, self.records = head, transitions, records
        self.left = left
        """Records of an earlier thread of this id, which its deletion should have taken."""
        self.created: dict[str, rs.RunCreated] = {}
        self.started: dict[str, list[rs.RunStarted]] = {}
        self.released: dict[str, int] = {}
        self.ends: dict[str, End] = {}
        self.cancelled: set[str] = set()
        self._commanded: set[str] = set()
        self.values_seq = 0
        """Of the last root values that a transition names."""
        for _, transition in transitions:
            self._fold(transition)

    @property
    def exists(self) -> bool:
        """Whether the thread is there."""
        return self.head.state is not None and not self.head.state.deleted

    @property
    def is_deleted(self) -> bool:
        """Whether a tombstone is its head."""
        return self.head.state is not None and self.head.state.deleted

    def _end(self, run_id: str, end: End) -> None:
        assert run_id in self.created, f"run {run_id} ended and was not created"
        assert run_id not in self.ends, f"run {run_id} ended twice: {self.ends[run_id]}, {end}"
        self.ends[run_id] = end

    def _fold(self, transition: rs.Transition) -> None:
        match transition.name:
            case "run_created":
                created = msgspec.json.decode(transition.payload, type=rs.RunCreated)
                assert created.run_id not in self.created, f"run {created.run_id} was created twice"
                self.created[created.run_id] = created
                running = transition.state.running
                for run_id in created.supersedes:
                    self.cancelled.add(run_id)
                    if running is None or running.run_id != run_id:
                        self._end(run_id, End("interrupted", rolled=created.strategy == "rollback"))
            case "run_started":
                started = msgspec.json.decode(transition.payload, type=rs.RunStarted)
                self.started.setdefault(started.run_id, []).append(started)
            case "run_released":
                released = msgspec.json.decode(transition.payload, type=rs.RunReleased)
                self.released[released.run_id] = self.released.get(released.run_id, 0) + 1
            case "run_cancel_requested":
                request = msgspec.json.decode(transition.payload, type=rs.RunCancelRequested)
                self.cancelled.add(request.run_id)
                self._commanded.add(request.run_id)
                if request.ended:
                    self._end(request.run_id, End("interrupted", rolled=request.action == "rollback"))
            case "run_ended":
                ended = msgspec.json.decode(transition.payload, type=rs.RunEnded)
                self._end(ended.run_id, End(ended.status, ended.attempt, ended.values_seq, error=ended.error))
                self.values_seq = ended.values_seq or self.values_seq
            case "run_rolled_back":
                rolled = msgspec.json.decode(transition.payload, type=rs.RunRolledBack)
                self._end(rolled.run_id, End("interrupted", rolled=True))
            case "state_updated":
                updated = msgspec.json.decode(transition.payload, type=StateUpdated)
                self.values_seq = updated.values_seq or self.values_seq
            case _:
                pass

    def runs_by_tag(self) -> dict[int, list[str]]:
        """The runs that each request made."""
        out: dict[int, list[str]] = {}
        for run_id, created in self.created.items():
            out.setdefault(int(created.metadata.get("sim", -1)), []).append(run_id)
        return out

    def cancelled_by_command(self) -> set[str]:
        """The runs that a request of their own has cancelled."""
        return self._commanded

    def count(self, name: rs.TransitionName) -> int:
        """How many transitions have this name."""
        return sum(transition.name == name for _, transition in self.transitions)

    def crashes(self, run_id: str) -> int:
        """How often the run's holder vanished."""
        return len(self.started.get(run_id, ())) - 1 - self.released.get(run_id, 0)

    def rows(self) -> dict[str, str]:
        """The rows that the runs must have."""
        return {run_id: end.status for run_id, end in self.ends.items() if not end.rolled}

    def views(self) -> list[tuple[int, Record, LineView]]:
        """Every line, with its seq and its record. An end that is told ahead of its place is told again there."""
        return [
            (pack(record.stream_seq, number), record, decode_line(line))
            for record in self.records
            if not record.header.is_ahead
            for number, line in enumerate(record.lines)
        ]

    def frames(self, channels: tuple[str, ...]) -> list[tuple[int, str]]:
        """Seq and event id of what a v2 stream of these channels must carry."""
        return [
            (pack(record.stream_seq, number), view.event_id)
            for record in self.records
            if not record.header.is_ahead
            for number, line in enumerate(record.lines)
            if is_event(line) and (view := decode_line(line)).method.split(".")[0] in channels
        ]

    def told_ends(self) -> dict[str, str]:
        """Each run's status as its terminal event tells it."""
        out: dict[str, str] = {}
        for _, record, view in self.views():
            if is_terminal(view):
                assert record.header.run_id not in out, f"run {record.header.run_id} has two terminal events"
                out[record.header.run_id] = view.x["status"]
        return out

    def values_at(self, seq: int) -> dict[str, Any] | None:
        """The values of a line."""
        stream_seq, line = unpack(seq)
        found = [record for record in self.records if record.stream_seq == stream_seq]
        return decode_line(found[0].lines[line]).data if found else None


def is_terminal(view: LineView) -> bool:
    """Whether the line ends a run."""
    return view.method == "lifecycle" and view.namespace == () and view.data["event"] in ROOT_ENDS


def is_running(view: LineView) -> bool:
    """Whether the line begins an attempt."""
    return view.method == "lifecycle" and view.namespace == () and view.data["event"] == "running"


async def read(world: World, thread_id: str) -> ThreadHistory:
    """All of a thread, from the broker."""
    head = await world.control.head(world.scope, thread_id)
    stream, subject = subjects.control_stream(world.region), subjects.control(world.scope, thread_id)
    transitions: list[tuple[int, rs.Transition]] = []
    seq = 1
    while (found := await next_of_subject(world.connection, stream, subject, seq)) is not None:
        transition = rs.decode_transition(found.body)
        transitions.append((found.stream_seq, transition))
        if transition.name in ("thread_deleted", "thread_erased"):
            transitions.clear()
        seq = found.stream_seq + 1
    records: list[Record] = []
    seq, left = 1, 0
    while (record := await world.threads.next(world.scope, thread_id, seq)) is not None:
        if record.is_erasure:
            left += len(records)
            records.clear()
        else:
            records.append(record)
        seq = record.stream_seq + 1
    return ThreadHistory(head, transitions, records, left)


def unpublished(history: ThreadHistory) -> list[str]:
    """The runs that have ended and whose terminal event is not there yet."""
    told = history.told_ends()
    return [run_id for run_id in history.ends if run_id not in told]


def check_transitions(history: ThreadHistory) -> None:
    """The control log is a chain of decisions that were allowed. Raises: AssertionError."""
    before: rs.ThreadState | None = None
    fence = 0
    for seq, transition in history.transitions:
        match transition.name:
            case "run_created":
                created = msgspec.json.decode(transition.payload, type=rs.RunCreated)
                was_open = {each.id for each in before.interrupts} if before is not None else set[str]()
                answered = {answer.interrupt_id for answer in created.answers}
                assert answered <= was_open, f"{seq} answers {answered}, and {was_open} were open"
            case "run_started":
                started = msgspec.json.decode(transition.payload, type=rs.RunStarted)
                assert started.fence > fence, f"{seq} started under the fence {started.fence}, after {fence}"
                fence = started.fence
            case "run_ended":
                ended = msgspec.json.decode(transition.payload, type=rs.RunEnded)
                running = before.running if before is not None else None
                assert running is not None and running.run_id == ended.run_id, f"{seq} ends a run that was not running"
                assert running.attempt == ended.attempt, f"{seq} ends attempt {ended.attempt} of {running}"
                assert running.cancel is None or ended.status != "success", f"{seq} overlooks a cancel: {running}"
                assert running.cancel != "rollback" or ended.status in ("error", "timeout"), f"{seq}: {running}"
            case _:
                pass
        before = rs.resolve(transition.state, seq)
    for run_id, attempts in history.started.items():
        numbers = [started.attempt for started in attempts]
        assert numbers == list(range(1, len(numbers) + 1)), f"attempts of {run_id}: {numbers}"
    missing = [run_id for run_id in history.created if run_id not in history.ends]
    assert not missing, f"runs that have not ended: {missing}"


def check_log(history: ThreadHistory) -> None:
    """One attempt at a time, each a prefix, each run's end once and last. Raises: AssertionError."""
    ended: set[str] = set()
    attempts: dict[str, int] = {}
    ordinals: dict[tuple[str, int], int] = {}
    current: str | None = None
    ids: set[str] = set()
    for seq, record, view in history.views():
        header = record.header
        run_id = header.run_id
        assert run_id not in ended, f"{seq}: run {run_id} speaks behind its end"
        if not view.event_id.startswith("synth:"):
            assert view.event_id not in ids, f"{seq}: {view.event_id} for the second time"
            ids.add(view.event_id)
        if header.attempt:
            assert header.attempt >= attempts.get(run_id, 1), f"{seq}: attempt {header.attempt} of {run_id} comes late"
            attempts[run_id] = header.attempt
            last = ordinals.get((run_id, header.attempt), 0)
            assert header.ordinal in (last, last + 1), f"{seq}: record {header.ordinal} behind {last}"
            ordinals[run_id, header.attempt] = header.ordinal
            assert current in (None, run_id), f"{seq}: {run_id} speaks before {current} has ended"
            current = run_id
        if is_terminal(view):
            ended.add(run_id)
            current = None if current == run_id else current
            running = history.started.get(run_id)
            if running:
                assert view.x["attempt"] in (0, running[-1].attempt), f"{seq}: {view.x}, {running[-1]}"
    told = history.told_ends()
    for run_id, end in history.ends.items():
        assert told.get(run_id) == end.status, f"run {run_id} ended as {end}, and its stream says {told.get(run_id)}"
    unknown = set(told) - set(history.created)
    assert not unknown, f"terminal events of runs that were not created: {unknown}"
