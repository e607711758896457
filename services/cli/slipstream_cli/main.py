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
