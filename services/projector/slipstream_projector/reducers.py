"""From a transition to the statements that change the rows. Pure: no clock, no I/O.

Each statement carries the record's seq and leaves a row alone that is as new, so applying a record twice changes
nothing. `values` of an ended run come from the thread log and are handed in.
"""

from datetime import UTC, datetime

import msgspec

from slipstream_schemas import run_state as rs
from slipstream_schemas.codec import dumps
from slipstream_schemas.limits import WEBHOOK_KEPT_S
from slipstream_schemas.retention import LogTrimmed
from slipstream_schemas.state_updates import StateUpdated
from slipstream_schemas.subjects import Scope

Statement = tuple[str, tuple[object, ...]]

INSERT_THREAD = """INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status,
 config, interrupts, control_seq) VALUES ($1,$2,$3,$3,$3,$4,$5,$6,$7,$8)
 ON CONFLICT (tenant, thread_id) DO UPDATE SET created_at=excluded.created_at, updated_at=excluded.updated_at,
 state_updated_at=excluded.state_updated_at, metadata=excluded.metadata, status=excluded.status, config=excluded.config,
 values=NULL, interrupts=excluded.interrupts, error=NULL, log_from=NULL,
 control_seq=excluded.control_seq
 WHERE threads.control_seq < excluded.control_seq"""
PATCH_THREAD = """UPDATE threads SET metadata=metadata || $3, updated_at=$4, control_seq=$5
 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $5"""
THREAD_OF_RUN = """UPDATE threads SET metadata=metadata || $3, config=$4, status=$5, updated_at=$6, control_seq=$7
 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $7"""
ROLL_BACK_THREAD = """UPDATE threads SET status=$3, updated_at=$4, control_seq=$5, error=$6
 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $5"""
THREAD_STATUS = """UPDATE threads SET status=$3, updated_at=$4, control_seq=$5
 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $5"""
END_THREAD = """UPDATE threads SET status=$3, updated_at=$4, control_seq=$5, error=$6, interrupts=$7,
 values=COALESCE($8, values), state_updated_at=CASE WHEN $8::jsonb IS NULL THEN state_updated_at ELSE $4 END
 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $5"""
UPDATE_STATE = """UPDATE threads SET status=$3, updated_at=$4, control_seq=$5, error=NULL, interrupts=$6,
 values=COALESCE($7, values), state_updated_at=$4 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $5"""
INSERT_RUN = """INSERT INTO runs (tenant, run_id, thread_id, assistant_id, graph_id, created_at, updated_at, status,
 metadata, kwargs, multitask_strategy, attempt, log_seq, control_seq)
 VALUES ($1,$2,$3,$4,$5,$6,$6,'pending',$7,$8,$9,0,$10,$11) ON CONFLICT (tenant, run_id) DO NOTHING"""
START_RUN = """UPDATE runs SET status='running', updated_at=$3, started_at=COALESCE(started_at, $3),
 attempt=GREATEST(attempt, $4), error=NULL, control_seq=$5 WHERE tenant=$1 AND run_id=$2 AND control_seq < $5"""
END_RUN = f"""WITH ended AS (UPDATE runs SET status=$3, updated_at=$4, attempt=GREATEST(attempt, $5), error=$6,
 control_seq=$7 WHERE tenant=$1 AND run_id=$2 AND control_seq < $7 RETURNING *)
 INSERT INTO webhooks (tenant, run_id, thread_id, assistant_id, created_at, updated_at, status, metadata, kwargs,
 multitask_strategy, started_at, values, error, due_at, tries)
 SELECT tenant, run_id, thread_id, assistant_id, created_at, updated_at, status, metadata, kwargs, multitask_strategy,
 started_at, CASE WHEN started_at IS NOT NULL THEN (SELECT t.values FROM threads t WHERE t.tenant=ended.tenant
 AND t.thread_id=ended.thread_id) END, error, now(), 0 FROM ended
 WHERE kwargs ? 'webhook' AND updated_at > now() - interval '{WEBHOOK_KEPT_S:.0f} seconds'
 ON CONFLICT (tenant, run_id) DO NOTHING"""
DELETE_RUN = "DELETE FROM runs WHERE tenant=$1 AND run_id=$2 AND control_seq < $3"
DELETE_RUNS = "DELETE FROM runs WHERE tenant=$1 AND thread_id=$2 AND control_seq < $3"
BEGIN_ERASURE = "INSERT INTO erasures (tenant, thread_id, at) VALUES ($1,$2,$3) ON CONFLICT DO NOTHING"
END_ERASURE = "DELETE FROM erasures WHERE tenant=$1 AND thread_id=$2"
TRIM_LOG = """UPDATE threads SET log_from=$3, control_seq=$4
 WHERE tenant=$1 AND thread_id=$2 AND control_seq < $4"""
DELETE_THREAD = "DELETE FROM threads WHERE tenant=$1 AND thread_id=$2 AND control_seq < $3"


CANCELLED = dumps({"error": "UserInterrupt", "message": "The run was cancelled."})
ROLLED_BACK = dumps({"error": "UserRollback", "message": "The run was rolled back."})
"""Of a thread whose last run somebody has stopped, in the reference's words; the run itself has no error."""


class Applied(msgspec.Struct, frozen=True):
    """Where and when a transition lies."""

    scope: Scope
    thread_id: str
    stream_seq: int
    at: datetime

    @property
    def thread(self) -> tuple[str, str]:
        """The key of the thread's row."""
        return self.scope.tenant, self.thread_id


def values_seq(transition: rs.Transition) -> int:
    """The wire seq of the `values` line that the record needs, 0 for none."""
    match transition.name:
        case "run_ended":
            return msgspec.json.decode(transition.payload, type=rs.RunEnded).values_seq
        case "state_updated":
            return msgspec.json.decode(transition.payload, type=StateUpdated).values_seq
        case _:
            return 0


def reduce(
    transition: rs.Transition, scope: Scope, thread_id: str, stream_seq: int, values: bytes | None = None
) -> list[Statement]:
    """The statements for one record, in order."""
    applied = Applied(scope, thread_id, stream_seq, datetime.fromtimestamp(transition.at_ms / 1000, UTC))
    match transition.name:
        case "thread_created":
            created = msgspec.json.decode(transition.payload, type=rs.ThreadCreated)
            return [_insert_thread(applied, created.metadata, "idle")]
        case "thread_patched":
            patched = msgspec.json.decode(transition.payload, type=rs.ThreadPatched)
            return [(PATCH_THREAD, (*applied.thread, dumps(patched.metadata), applied.at, stream_seq))]
        case "thread_deleted":
            return [(DELETE_RUNS, (*applied.thread, stream_seq)), (DELETE_THREAD, (*applied.thread, stream_seq)),
                    (BEGIN_ERASURE, (*applied.thread, applied.at))]  # fmt: skip
        case "thread_erased":
            # The tombstone before it may be gone from the log already.
            return [(DELETE_RUNS, (*applied.thread, stream_seq)), (DELETE_THREAD, (*applied.thread, stream_seq)),
                    (END_ERASURE, applied.thread)]  # fmt: skip
        case "run_created":
            return _run_created(transition, applied)
        case "run_started":
            started = msgspec.json.decode(transition.payload, type=rs.RunStarted)
            return [(START_RUN, (scope.tenant, started.run_id, applied.at, started.attempt, stream_seq))]
        case "run_cancel_requested":
            return _run_cancelled(transition, applied)
        case "run_ended":
            return _run_ended(transition, applied, values)
        case "run_rolled_back":
            rolled = msgspec.json.decode(transition.payload, type=rs.RunRolledBack)
            thread = (*applied.thread, transition.state.status, applied.at, stream_seq, ROLLED_BACK)
            return [(DELETE_RUN, (scope.tenant, rolled.run_id, stream_seq)), (ROLL_BACK_THREAD, thread)]
        case "run_deleted":
            deleted = msgspec.json.decode(transition.payload, type=rs.RunDeleted)
            return [(DELETE_RUN, (scope.tenant, deleted.run_id, stream_seq))]
        case "state_updated":
            updated = msgspec.json.decode(transition.payload, type=StateUpdated)
            return [(UPDATE_STATE, (*applied.thread, transition.state.status, applied.at, stream_seq,
                                    dumps(updated.interrupts), values))]  # fmt: skip
        case "log_trimmed":
            trimmed = msgspec.json.decode(transition.payload, type=LogTrimmed)
            log_from = datetime.fromtimestamp(trimmed.before_ms / 1000, UTC)
            return [(TRIM_LOG, (*applied.thread, log_from, stream_seq))]
        case "run_released" | "thread_settled":
            return []


def _insert_thread(
    applied: Applied, metadata: dict[str, object], status: str, config: dict[str, object] | None = None
) -> Statement:
    row = (*applied.thread, applied.at, dumps(metadata), status, dumps(config or {}), b"{}", applied.stream_seq)
    return (INSERT_THREAD, row)


def _thread_status(applied: Applied, status: str) -> Statement:
    return (THREAD_STATUS, (*applied.thread, status, applied.at, applied.stream_seq))


def _end_run(
    applied: Applied, run_id: str, status: str, attempt: int = 0, error: dict[str, str] | None = None
) -> Statement:
    """The run's row, and what its webhook is to be told; the thread's row must have its values already."""
    error_json = None if error is None else dumps(error)
    where = (applied.scope.tenant, run_id, status, applied.at, attempt, error_json, applied.stream_seq)
    return (END_RUN, where)


def _run_created(transition: rs.Transition, applied: Applied) -> list[Statement]:
    created = msgspec.json.decode(transition.payload, type=rs.RunCreated)
    of_run = {"graph_id": created.graph_id, "assistant_id": created.assistant_id}
    config = {"configurable": created.config.get("configurable", {})}
    out: list[Statement] = []
    if created.thread_metadata is not None:
        out.append(_insert_thread(applied, {**created.thread_metadata, **of_run}, "busy", config))
    # A run that starts later is listed, ordered and looked after as if it had been created then.
    begins = datetime.fromtimestamp(created.due_ms / 1000, UTC) if created.due_ms else applied.at
    out.append((THREAD_OF_RUN, (*applied.thread, dumps(of_run), dumps(config), transition.state.status, applied.at,
                                applied.stream_seq)))  # fmt: skip
    out.append(
        (INSERT_RUN, (applied.scope.tenant, created.run_id, applied.thread_id, created.assistant_id, created.graph_id,
                      begins, dumps(created.metadata), dumps(created.said), created.strategy, created.log_seq,
                      applied.stream_seq))
    )  # fmt: skip
    running = transition.state.running
    for run_id in created.supersedes:
        if running is not None and run_id == running.run_id:
            continue
        if created.strategy == "rollback":
            out.append((DELETE_RUN, (applied.scope.tenant, run_id, applied.stream_seq)))
        else:
            out.append(_end_run(applied, run_id, "interrupted"))
    return out


def _run_cancelled(transition: rs.Transition, applied: Applied) -> list[Statement]:
    request = msgspec.json.decode(transition.payload, type=rs.RunCancelRequested)
    if not request.ended:
        return []
    if request.action == "rollback":
        end: Statement = (DELETE_RUN, (applied.scope.tenant, request.run_id, applied.stream_seq))
    else:
        end = _end_run(applied, request.run_id, "interrupted")
    return [end, _thread_status(applied, transition.state.status)]


def _run_ended(transition: rs.Transition, applied: Applied, values: bytes | None) -> list[Statement]:
    ended = msgspec.json.decode(transition.payload, type=rs.RunEnded)
    stopped = CANCELLED if ended.status == "interrupted" else None
    error = stopped if ended.error is None else dumps(ended.error)
    thread = (*applied.thread, transition.state.status, applied.at, applied.stream_seq, error, dumps(ended.interrupts),
              values)  # fmt: skip
    return [(END_THREAD, thread), _end_run(applied, ended.run_id, ended.status, ended.attempt, ended.error)]
