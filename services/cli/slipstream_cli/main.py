"""`slipstream`: run everything on this machine, or one service of a production set-up."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from slipstream_schemas.errors import SlipstreamError

EPILOG = """\
In a project with a langgraph.json, `slipstream dev` serves its graphs on http://127.0.0.1:2024, with a NATS and a
Postgres of its own. In production run `slipstream provision` once, then `slipstream api`, `runner` and `projector` as
processes of their own, with NATS_URL and DATABASE_URL set. Other settings are SLIPSTREAM_* variables; an unknown one is
refused with the list of those that exist.
"""


QUARANTINE_EPILOG = """\
A record that the projector cannot apply is put aside, and everything else goes on. The run went well or ill without it:
the log is whole, only rows lack what the record says (metadata, values, an error); statuses are right.

  1. slipstream quarantine list           which threads, and why
  2. slipstream quarantine show SEQ       the record itself; it may hold what users wrote
  3. mend the cause: most often a newer version wrote what this projector does not know, so bring it up to date
  4. slipstream quarantine retry SEQ      fold that thread again; the projector may run meanwhile
  5. slipstream quarantine skip SEQ       or live without it; a later `slipstream rebuild` finds it again

NATS_URL, DATABASE_URL and SLIPSTREAM_REGION are those of the services.
"""


def _dev(arguments: argparse.Namespace) -> int:
    from slipstream_cli.dev import DevOptions, run_dev

    return run_dev(
        DevOptions(
            Path(arguments.config),
            arguments.host,
            arguments.port,
            Path(arguments.state_dir),
            arguments.runners,
            arguments.reload,
        )
    )


def _api(_: argparse.Namespace) -> int:
    from slipstream_api.main import main as serve

    serve()
    return 0


def _runner(arguments: argparse.Namespace) -> int:
    from slipstream_runner.main import main as serve

    if arguments.config is not None:
        os.environ["SLIPSTREAM_CONFIG"] = arguments.config
    serve()
    return 0


def _projector(_: argparse.Namespace) -> int:
    from slipstream_projector.main import main as serve

    serve()
    return 0


def _provision(arguments: argparse.Namespace) -> int:
    from slipstream_cli.operate import run_provision

    return run_provision(arguments.audit)


def _permissions(arguments: argparse.Namespace) -> int:
    from slipstream_cli.operate import run_permissions

    return run_permissions(arguments.region, arguments.audit)


def _rebuild(_: argparse.Namespace) -> int:
    from slipstream_cli.operate import run_rebuild

    return run_rebuild()


def _quarantine(arguments: argparse.Namespace) -> int:
    from slipstream_cli.quarantine import run_list, run_retry, run_show, run_skip

    match arguments.action:
        case "list":
            return run_list()
        case "show":
            return run_show(arguments.seq[0])
        case "retry":
            return run_retry(arguments.seq)
        case _:
            return run_skip(arguments.seq)


def _doctor(arguments: argparse.Namespace) -> int:
    from slipstream_cli.operate import run_doctor

    return run_doctor(Path(arguments.config))


def _version(_: argparse.Namespace) -> int:
    from importlib.metadata import version

    print(version("slipstream"))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        "slipstream",
        description="A self-hosted Agent Protocol server for LangGraph graphs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = out.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    dev = add("dev", _dev, "run everything on this machine, with its own NATS and Postgres")
    dev.add_argument("--config", default="langgraph.json", help="the graphs to serve (default: %(default)s)")
    dev.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    dev.add_argument("--port", type=int, default=2024, help="port to listen on (default: %(default)s)")
    dev.add_argument("--state-dir", default=".slipstream", help="folder of the log and the rows (default: %(default)s)")
    dev.add_argument("--runners", type=int, default=1, help="runner processes (default: %(default)s)")
    dev.add_argument("--no-reload", dest="reload", action="store_false", help="keep graphs when their code changes")
    add("api", _api, "the API process")
    runner = add("runner", _runner, "a process that executes runs")
    runner.add_argument("--config", default=None, help="the graphs to serve (default: SLIPSTREAM_CONFIG)")
    add("projector", _projector, "the process that folds the log into rows")
    provision = add("provision", _provision, "create streams and tables, or say what differs")
    permissions = add("permissions", _permissions, "print what each service may do in NATS, for its configuration")
    permissions.add_argument("--region", default="local", help="the region (default: %(default)s)")
    for command in (provision, permissions):
        text = "a feed for an auditor, as control.<tenant> or threads.<tenant>; may be repeated"
        command.add_argument("--audit", action="append", default=[], metavar="FEED", help=text)
    add("rebuild", _rebuild, "fold the whole log into fresh rows")
    quarantine = add("quarantine", _quarantine, "look at control records that could not be applied, retry or skip them")
    quarantine.epilog = QUARANTINE_EPILOG
    quarantine.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = quarantine.add_subparsers(required=True, metavar="action", dest="action")
    actions.add_parser("list", help="what is there: seq, thread, transition, error")
    for name, text in (
        ("show", "one record, whole"), ("retry", "fold the threads of these records again"), ("skip", "forget them"),
    ):  # fmt: skip
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("seq", type=int, nargs=1 if name == "show" else "+", help="as `list` shows it")
    doctor = add("doctor", _doctor, "check NATS, Postgres and the graphs, and say what to do next")
    doctor.add_argument("--config", default="langgraph.json", help="the graphs to check (default: %(default)s)")
    add("version", _version, "print the version")
    return out


def main() -> None:
    """Run the command."""
    arguments = parser().parse_args()
    try:
        code = arguments.run(arguments)
    except SlipstreamError as error:
        print(f"slipstream: {error.message}", file=sys.stderr)
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
