"""The rows of a thread from a transition's folded state alone, for when its record cannot be applied whole.

The folded state knows the thread's status and the runs that execute or wait; it does not know what a record carried
besides: metadata, values, errors. So statuses stay right, a wait for a run ends, and the rest stays as it was until the
record is retried. Pure, like the reducers.
"""

from datetime import UTC, datetime

import msgspec

from slipstream_projector.reducers import BEGIN_ERASURE, DELETE_RUNS, DELETE_THREAD, END_ERASURE, Statement
from slipstream_schemas import run_state as rs
from slipstream_schemas.codec import dumps
from slipstream_schemas.subjects import Scope

THREAD = """INSERT INTO threads (tenant, thread_id, created_at, updated_at, state_updated_at, metadata, status, config,
 interrupts, control_seq) VALUES ($1,$2,$3,$3,$3,$6,$4,$6,$6,$5)
 ON CONFLICT (tenant, thread_id) DO UPDATE SET status=excluded.status, updated_at=excluded.updated_at,
 control_seq=excluded.control_seq WHERE threads.control_seq <= excluded.control_seq
 AND threads.status <> excluded.status"""
RUN = """INSERT INTO runs (tenant, run_id, thread_id, assistant_id, graph_id, created_at, updated_at, status, metadata,
 kwargs, multitask_strategy, attempt, log_seq, control_seq) VALUES ($1,$2,$3,'',$4,$5,$5,$6,$10,$10,'enqueue',$7,$8,$9)
 ON CONFLICT (tenant, run_id) DO UPDATE SET status=excluded.status, attempt=GREATEST(runs.attempt, excluded.attempt),
 control_seq=excluded.control_seq WHERE runs.control_seq <= excluded.control_seq
 AND (runs.status <> excluded.status OR runs.attempt < excluded.attempt)"""
OVER = """UPDATE runs SET status=$4, error=$5, updated_at=$6, control_seq=$7 WHERE tenant=$1 AND thread_id=$2
 AND status IN ('pending', 'running') AND run_id <> ALL($3) AND control_seq <= $7"""
UNKNOWN = "how the run ended could not be projected; `slipstream quarantine list` shows the record"


def bare(transition: rs.Transition, scope: Scope, thread_id: str, stream_seq: int) -> list[Statement]:
    """The statements for one record. Rows that are right already stay as they are."""
    state, at = transition.state, datetime.fromtimestamp(transition.at_ms / 1000, UTC)
    thread = (scope.tenant, thread_id)
    if state.deleted:
        erasure: Statement = (
            (END_ERASURE, thread) if transition.name == "thread_erased" else (BEGIN_ERASURE, (*thread, at))
        )
        return [(DELETE_RUNS, (*thread, stream_seq)), (DELETE_THREAD, (*thread, stream_seq)), erasure]
    out: list[Statement] = [(THREAD, (*thread, at, state.status, stream_seq, b"{}"))]
    active = [(run.run_id, run.graph_id, "pending", 0, run.log_seq) for run in state.pending]
    if state.running is not None:
        run = state.running
        active.append((run.run_id, run.graph_id, "running", run.attempt, run.log_seq))
    for run_id, graph_id, status, attempt, log_seq in active:
        out.append((RUN, (scope.tenant, run_id, thread_id, graph_id, at, status, attempt, log_seq, stream_seq, b"{}")))
    error = dumps({"error": "Quarantined", "message": UNKNOWN})
    ids = [run[0] for run in active]
    out.append((OVER, (*thread, ids, _status_of_the_over(transition), error, at, stream_seq)))
    return out


def _status_of_the_over(transition: rs.Transition) -> str:
    """The status of a run that the state no longer knows: a cancel and a newer run interrupt, an end says itself."""
    if transition.name != "run_ended":
        return "interrupted" if transition.name in ("run_cancel_requested", "run_created") else "error"
    try:
        return msgspec.json.decode(transition.payload, type=rs.RunEnded).status
    except msgspec.MsgspecError:
        return "error"
