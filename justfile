# What a contributor does. `python3 dev.py just <recipe>` runs it inside the environment; bare `just` lists.

set positional-arguments

_list:
    @just --list --unsorted

# Run the example graphs: embedded NATS and Postgres, API, runner, projector
dev *args:
    slipstream dev --config examples/langgraph.json "$@"

# Every check and every test, as CI runs them
test *args:
    python3 dev.py test "$@"

# Format, lint, import contracts
lint:
    ruff format --check .
    ruff check .
    lint-imports

# mypy strict and basedpyright strict
types:
    mypy .
    basedpyright

# Format the code and mend what can be mended
fmt:
    ruff format .
    ruff check --fix .

# Pure tests: no server
unit *args:
    pytest tests/unit "$@"

# One suite on each implementation of a seam
contract *args:
    pytest tests/contract "$@"

# Real NATS, real Postgres, real processes
integration *args:
    pytest tests/integration "$@"

# The stock clients, unmodified
conformance *args:
    pytest tests/conformance "$@"

# Write docs/conformance.md from the promises that the conformance tests mark
conformance-table *args:
    python tools/conformance_table.py "$@"

# Write the statuses in docs/migrate.md from the API's description
status-table *args:
    python tools/status_table.py "$@"

# kill -9, pauses, outages, bad networks; `FAULT_TRIALS=200` and `ROLLING_STREAMS=100` for the long series
faults *args:
    pytest tests/faults "$@"

# Graphs drawn at random, translated and run; `DRAWN_GRAPHS=20000 DRAWN_RUNS=2000` for more, `DRAWN_SHRINK=1` to shrink
drawn-graphs *args:
    DRAWN_GRAPHS="${DRAWN_GRAPHS:-2000}" DRAWN_RUNS="${DRAWN_RUNS:-300}" \
        pytest -o faulthandler_timeout=0 tests/unit/test_drawn_graphs.py tests/integration/test_drawn_graphs.py "$@"

# Commands, faults and pauses drawn from a seed: `just sim` draws one, `just sim seed=42 examples=50 steps=40` names it
sim *args:
    #!/usr/bin/env bash
    set -euo pipefail
    export SIMULATION_EXAMPLES=30 SIMULATION_STEPS=40
    for given in "$@"; do export "SIMULATION_$(tr a-z A-Z <<< "${given%%=*}")=${given#*=}"; done
    # A long one takes longer than a test that hangs.
    pytest -s -o faulthandler_timeout=0 tests/simulation

# The suites of the services on three nats-servers instead of one
cluster-tests *args="tests/integration tests/conformance":
    TEST_NATS=cluster pytest -n 2 --dist loadfile {{args}}

# The stock clients behind a load balancer that sends each request to any of two APIs
balanced-tests *args="tests/conformance":
    BALANCED_APIS=2 pytest -n 2 --dist loadfile {{args}}

# Measure, with the limits of the machine beside the figures
bench *args:
    PYTHONPATH=tools:tests python -m bench "$@"

# Measure how long it takes until runs and streams go on after a crash
recovery *args:
    PYTHONPATH=tools:tests python -m bench.recovery "$@"

# Measure 5,000 idle streams, 2,000 clients that come back at once, clients that read a byte a second
crowd *args:
    PYTHONPATH=tools:tests python -m bench.crowd "$@"

# Replay the control log into threads and runs rows
rebuild *args:
    slipstream rebuild "$@"

# Resolve the requirements anew; add `--upgrade` to take newer versions
lock *args:
    uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 "$@" pyproject.toml -o requirements.lock
    uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 --group dev "$@" pyproject.toml -o requirements-dev.lock

# Resolve the packages of the JavaScript clients anew
lock-js:
    node tests/conformance/lock.mjs

# Known vulnerabilities of what is locked. Asks PyPI's advisories, so it needs the network; tests ask none
audit *args:
    uv tool run pip-audit --strict --disable-pip --require-hashes -r requirements.lock "$@"

# Build the wheel and the source distribution
build:
    uv build
