"""Where things lie: streams, the literal subjects of a thread, and the subjects of requests."""

import base64

import msgspec

from slipstream_schemas.errors import Corrupt


class Scope(msgspec.Struct, frozen=True):
    """The region and tenant that a thread belongs to; both are subject tokens."""

    region: str = "local"
    tenant: str = "default"


class ParsedSubject(msgspec.Struct, frozen=True):
    """A subject of a thread, taken apart."""

    family: str
    scope: Scope
    thread_id: str


def threads_stream(region: str) -> str:
    """The stream of thread logs and leases."""
    return f"THREADS_{region}"


def control_stream(region: str) -> str:
    """The stream of control logs, work items and crons."""
    return f"CONTROL_{region}"


def thread_log(scope: Scope, thread_id: str) -> str:
    """Everything that a client of the thread sees."""
    return f"threads.{scope.region}.{scope.tenant}.{thread_id}"


def lease(scope: Scope, thread_id: str) -> str:
    """Who may write the thread log now."""
    return f"leases.{scope.region}.{scope.tenant}.{thread_id}"


def control(scope: Scope, thread_id: str) -> str:
    """Every lifecycle change of the thread and of its runs."""
    return f"control.{scope.region}.{scope.tenant}.{thread_id}"


def work(scope: Scope, thread_id: str) -> str:
    """A run that may execute now."""
    return f"work.{scope.region}.{scope.tenant}.{thread_id}"


def family(name: str, region: str) -> str:
    """All subjects of one family in a region, as in `control.local.>`."""
    return f"{name}.{region}.>"


def runner_rpc(region: str, holder: str) -> str:
    """Questions to one runner process."""
    return f"rpc.{region}.runner.{holder}"


def graph_rpc(region: str, graph_id: str) -> str:
    """Questions that any runner which has the graph can answer. Graph ids are free text, so they are encoded."""
    token = base64.b32encode(graph_id.encode()).decode().rstrip("=")
    return f"rpc.{region}.graph.{token}"


def cron_schedule(scope: Scope, cron_id: str) -> str:
    """The broker's schedule of a cron's next tick."""
    return f"crons.{scope.region}.{scope.tenant}.{cron_id}.at"


def cron_due(scope: Scope, cron_id: str) -> str:
    """Where a cron's tick fires."""
    return f"crons.{scope.region}.{scope.tenant}.{cron_id}.due"


def work_schedule(scope: Scope, run_id: str) -> str:
    """The broker's schedule of a run's work item."""
    return f"crons.{scope.region}.{scope.tenant}.{run_id}.start"


def store_rpc(region: str) -> str:
    """Questions about the store, which any runner can answer."""
    return f"rpc.{region}.store"


def upkeep_rpc(region: str) -> str:
    """What any runner does for the API because it takes a lease."""
    return f"rpc.{region}.upkeep"


def position_subject(region: str) -> str:
    """Where the projector says how far it has come (core NATS)."""
    return f"position.{region}"


def unwatched_subject(region: str) -> str:
    """Where the APIs tell each other of runs that nobody watches yet (core NATS)."""
    return f"unwatched.{region}"


def thread_key(scope: Scope, thread_id: str) -> str:
    """The key of a thread in tables that know no tenant (checkpoints, fences)."""
    return f"{scope.tenant}/{thread_id}"


def parse(subject: str) -> ParsedSubject:
    """Take a thread's subject apart. Raises: Corrupt for a foreign subject."""
    parts = subject.split(".")
    if len(parts) != 4:
        raise Corrupt(f"not the subject of a thread: {subject}")
    return ParsedSubject(parts[0], Scope(parts[1], parts[2]), parts[3])
