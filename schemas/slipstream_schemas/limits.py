"""Every bound of the system, with its unit in its name. Relations between bounds are asserted at the end.

A bound that an operator may change is a default of a setting; the others are part of the design.
"""

from typing import Final

# Wire and ids
THREAD_ID_CHARS_MAX: Final = 128
TOKEN_CHARS_MAX: Final = 64
BODY_BYTES_MAX: Final = 6 * 1024 * 1024
BODY_DEADLINE_S: Final = 60.0
"""A body that is still on its way by then is given up."""
HEAD_BYTES_MAX: Final = 32 * 1024
"""Of a request's headers together, names and values."""
HEADERS_MAX: Final = 100
HEAD_DEADLINE_S: Final = 20.0
"""How long a connection may be open, or a request's head be on its way, before it is closed."""
URL_BYTES_MAX: Final = 16 * 1024
OPEN_FILES_MAX: Final = 128 * 1024
"""An API asks the kernel for so many, or as many as it may: each client's connection is one."""
OPEN_FILES_KEPT: Final = 128
"""Of those, what an API keeps for NATS, Postgres, webhooks and the user's own code."""
LISTEN_BACKLOG: Final = 16 * 1024
"""Clients that wait to be accepted. The kernel has a bound of its own (`net.core.somaxconn`)."""
CALLER_REQUESTS_MAX: Final = 1000
"""Requests, streams and sockets of one caller, as auth handlers name it, that are open in one API process at a time."""
JSON_DEPTH_MAX: Final = 64
VALUE_DEPTH_MAX: Final = 200
"""Of what a graph says. Python's own limit of 1,000 frames would stop a reader that decodes deeper ones."""
INTEGER_DIGITS_MAX: Final = 4300
"""Python reads and writes no longer integers as text."""
NUMBER_DIGITS_MAX: Final = 308
"""A double holds no longer number, and the stock clients fail on the whole answer that has one."""
PATH_KEY_CHARS_MAX: Final = 64
"""Of a key in the text of an error."""
PATH_STEPS_MAX: Final = 8
"""Keys of a way into a value that the text of an error shows."""
CHANNELS_MAX: Final = 64
NAMESPACES_MAX: Final = 64
NAMESPACE_SEGMENTS_MAX: Final = 32
METADATA_KEYS_MAX: Final = 256
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
GRAPH_ID_CHARS_MAX: Final = 256
"""It stands in a subject, encoded: NATS closes the connection that sends a line of 4 KiB."""
SEARCH_LIMIT_MAX: Final = 1000
SEARCH_OFFSET_MAX: Final = 2**31 - 1
BATCH_RUNS_MAX: Final = 100
CANCEL_RUNS_MAX: Final = 1000
"""Runs that one request may stop."""
ASSISTANT_BYTES_MAX: Final = 1024 * 1024
"""The body that makes or changes an assistant: every run's record carries its config and context."""
SEARCH_TOTAL_MAX: Final = 10_000
"""Matches are counted exactly up to here; beyond, a search says that there are more."""
EXTRACT_PATHS_MAX: Final = 10
EXTRACT_KEYS_MAX: Final = 32

MCP_TOOLS_MAX: Final = 1000
"""Assistants that are shown as tools."""
MCP_TOOLS_PAGE: Final = 100

# Thread log
RECORD_LINES_MAX: Final = 256
"""Stock SDK queues overflow on larger bursts, and `seq` has eight bits for the line."""
RECORD_BYTES_MAX: Final = 1024 * 1024
"""A flush is cut here; a single line may be larger, up to `MESSAGE_BYTES_MAX`."""
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""And no more than the `max_payload` of the NATS server, where that is less."""
RECORD_FRAME_BYTES: Final = 64 * 1024
"""Kept free in a record for headers and event ids."""
LINE_BYTES_MAX: Final = MESSAGE_BYTES_MAX - RECORD_FRAME_BYTES
"""A state, chunk or update over this fails its run."""
INTERRUPTS_BYTES_MAX: Final = 1024 * 1024
"""Of the values of a run's open interrupts: the record of its end holds each up to five times."""
ERROR_TEXT_CHARS_MAX: Final = 16 * 1024
"""Of the text of a run's error; a longer one is cut."""
RUN_QUEUE_LINES_MAX: Final = 4096
"""Lines waiting between a graph and its publisher; a full queue slows the graph."""
MODEL_CALLS_REMEMBERED_MAX: Final = 10_000
"""Model calls of an attempt that are known at a time; what an older one says is told apart by its message id."""
DUPLICATE_WINDOW_S: Final = 120
PUBLISH_DEADLINE_S: Final = 5.0
PUBLISH_OUTAGE_S: Final = 300.0
"""How long a run's publisher retries one record through a broker outage before it gives its run up."""
REQUEST_DEADLINE_S: Final = 5.0
CONNECT_DEADLINE_S: Final = 10.0
PING_INTERVAL_S: Final = 2
PINGS_UNANSWERED_MAX: Final = 2
"""A broker that leaves more of them unanswered is taken for gone: after 4 to 6 s, below `ACK_WAIT_S`, so that a runner
whose link alone has died keeps its runs."""
PEER_SILENCE_S: Final = 8
"""What the kernel sends to a server is acknowledged by then, or the connection ends (TCP_USER_TIMEOUT)."""

# Deciding
PENDING_RUNS_MAX: Final = 100
DECIDE_TRIES_MAX: Final = 64
AFTER_SECONDS_MAX: Final = 366 * 86_400
"""How long a run may be asked to wait before it starts."""
RUN_CRASHES_MAX: Final = 3
"""A run whose holder vanished more often than this ends as `error`."""

# Work
SWEEP_THREADS_MAX: Final = 500
"""Threads that a sweep looks at while it holds its position, which it may do for `PEER_SILENCE_S`."""
ACK_WAIT_S: Final = 10.0
WORK_HEARTBEAT_S: Final = 2.0
RUNNER_SLOTS: Final = 10
STALL_LIMIT_S: Final = 60.0
RUN_TIMEOUT_S: Final = 86_400.0
DRAIN_GRACE_S: Final = 30.0
HOLDER_ANSWER_DEADLINE_S: Final = 1.0
HOLDER_RETURN_S: Final = 3.0
"""After an outage of the broker a holder has so long to come back before silence means its death."""
SYNC_NODE_THREADS: Final = 64

ERASE_DEADLINE_S: Final = 20.0
"""How long the API waits for a runner that erases a thread: purges of a large stream take long."""

STATELESS_KEPT_S: Final = 120.0
"""How long the thread of a stateless run stays when the run is over, so that whoever follows it comes to its end."""
TEMPORARY_GONE_S: Final = 3600.0
"""After this long the note of a temporary thread that was never made is dropped."""
TTL_MINUTES_MAX: Final = 10 * 365 * 24 * 60

# Retention
RETENTION_SWEEP_S: Final = 60.0
RETENTION_QUIET_S: Final = 300.0
"""A thread that changed since is left alone: its readers may not have everything yet."""
RETENTION_BATCH: Final = 100
"""Threads that are trimmed between two looks at the size of the log."""
RETENTION_STEPS: Final = 8
"""A thread in use is trimmed so often while its events come of age: they live an eighth longer at most."""
RETENTION_ROOM: Final = 0.9
"""Above the bound, the log is trimmed to this share of it."""
ERASED_KEPT_S: Final = 60
"""The record that ends the streams of a deleted thread."""
TOMBSTONE_KEPT_S: Final = 30 * 86_400
"""That of a deleted thread in the control log. A projector that is away for longer keeps the thread's rows."""

# Reading
PULL_EXPIRES_S: Final = 30.0
PULL_IDLE_HEARTBEAT_S: Final = 5.0
PULL_BATCH_RECORDS: Final = 500
PULL_BATCH_BYTES: Final = 8 * 1024 * 1024
CONSUMER_INACTIVE_S: Final = 120.0
TAIL_BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
STREAM_CONSUMERS_MAX: Final = 100_000
SSE_HEARTBEAT_S: Final = 5.0
SSE_SLICE_EVENTS_MAX: Final = 256
SSE_SEND_DEADLINE_S: Final = 60.0
"""A client that takes nothing of what waits for it for this long is dropped, as is a WebSocket that answers no ping."""
SOCKET_PING_S: Final = 20.0
PYTHON_SDK_EVENTS_PER_S: Final = 2_000
"""The stock Python SDK loses its queue of 1,024 and hangs on bursts: so it may stand still for 0.4 s."""
WATCHER_WAIT_S: Final = 2.0
"""How long a watcher's question waits for the same client's streams that carry the content."""
WATCHER_PAUSE_S: Final = 0.25
"""And a moment more, for what is on its way to the client or comes from another instance."""
STREAM_ORDER_WAIT_S: Final = 2.0
"""How long the answer to a stream waits for the answers to those that its client asked for before."""
SOCKET_SUBSCRIPTIONS_MAX: Final = 64
TREE_NODES_MAX: Final = 10_000
"""Subgraphs that `agent.getTree` shows; a larger tree is cut and says so."""

# State
HISTORY_LIMIT_MAX: Final = 1000
HISTORY_PAGE_STATES: Final = 50
"""A runner reads so many checkpoints at once; a longer history is asked for page by page."""
HISTORY_PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
HISTORY_BYTES_MAX: Final = 64 * 1024 * 1024
STATE_UPDATE_DEADLINE_S: Final = 8.0
"""How long the user's code may take over an update: a run that starts meanwhile waits for it."""
STATE_ANSWER_DEADLINE_S: Final = 25.0
"""Longer than the wait for a connection and the update together: an answer that is given arrives."""
SUPERSTEPS_MAX: Final = 1000
PRUNE_THREADS_MAX: Final = 1000
SELECT_FIELDS_MAX: Final = 64

# Read model
PROJECTION_WAIT_S: Final = 2.0
CREATE_PROJECTION_WAIT_S: Final = 1.0
PROJECTION_BATCH_MAX: Final = 500
DATABASE_DEADLINE_S: Final = 10.0
CHECKPOINT_OUTAGE_S: Final = 60.0
"""How long a run repeats a checkpoint that Postgres does not take, before it is handed back."""
TRANSACTION_DEADLINE_S: Final = 9.0
"""Postgres ends a runner's transaction that lasts longer, so that whoever waits for its rows gets them in time."""
RETRY_AFTER_S: Final = 1
NO_ROOM_RETRY_AFTER_S: Final = 5
"""Of a command for which the log has no room: somebody has to make some."""
GRAPH_XRAY_MAX: Final = 100
GRAPH_ANSWERS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Drawings and schemas of graphs that an API process remembers."""

# Figures
METRICS_SAMPLE_AGE_S: Final = 5.0
"""Figures that cost a question to the log or the rows are asked for no more often than this."""
METRICS_SAMPLE_DEADLINE_S: Final = 2.0
"""And given up after this: a scraper does not wait long."""

TRACE_METADATA_KEYS_MAX: Final = 32
TRACE_METADATA_VALUE_CHARS_MAX: Final = 512
"""Of a run's metadata, as attributes of its spans."""

# Crons
CRONS_MAX: Final = 10_000
"""Of one tenant."""
CRON_SCHEDULE_CHARS_MAX: Final = 256
CRON_SWEEP_S: Final = 5.0
CRON_LATE_S: Final = 5.0
"""A tick that has not fired by then is submitted by the sweep: the broker may have been away."""
CRON_SWEEP_ROWS: Final = 100
CRON_FIRINGS_AT_ONCE: Final = 16

# Webhooks
WEBHOOK_URL_CHARS_MAX: Final = 2048
WEBHOOK_CONNECT_DEADLINE_S: Final = 5.0
WEBHOOK_DEADLINE_S: Final = 15.0
"""Of one try as a whole, the look-up of the name included."""
WEBHOOK_CLAIM_S: Final = 30.0
"""A try that is not answered for by then belongs to whoever takes it next."""
WEBHOOK_RETRY_S: Final = 1.0
"""The first pause; each further one is twice as long, up to the next bound."""
WEBHOOK_RETRY_S_MAX: Final = 3600.0
WEBHOOK_GIVE_UP_S: Final = 86_400.0
WEBHOOK_KEPT_S: Final = 3 * 86_400.0
"""A run's webhook is remembered for so long, and the end of an older run is told to nobody: a rebuild repeats none."""
WEBHOOKS_AT_ONCE: Final = 16
WEBHOOK_POLL_S: Final = 0.5
WEBHOOK_ADDRESSES_MAX: Final = 4
"""Of one name, tried in turn."""

# Store
STORE_VALUE_BYTES_MAX: Final = 1024 * 1024
"""Of an item's value as JSON. A search answers with up to `SEARCH_LIMIT_MAX` items, all in a runner's memory."""
STORE_LABELS_MAX: Final = 32
STORE_LABEL_BYTES_MAX: Final = 256
STORE_NAMESPACE_BYTES_MAX: Final = 1024
STORE_KEY_BYTES_MAX: Final = 1024
STORE_FIELD_BYTES_MAX: Final = 256
STORE_FIELDS_MAX: Final = 64
STORE_FILTER_KEYS_MAX: Final = 64
STORE_NAMESPACES_LIMIT_MAX: Final = 1000
STORE_TTL_MINUTES_MIN: Final = 1
"""LangGraph keeps the TTL as whole minutes: less than one would expire when it is first refreshed."""
STORE_TTL_MINUTES_MAX: Final = 52_560_000
STORE_REQUEST_DEADLINE_S: Final = 20.0
"""How long the API waits for a runner: an item may have to be embedded first."""
STORE_DIMENSIONS_MAX: Final = 16_000
"""Of a pgvector column."""
STORE_EMBED_DEADLINE_S: Final = 60.0
STORE_POOL_SIZE: Final = 4
"""Connections with which a runner answers the API; runs use the pool of the checkpoints."""
STORE_WAITING_MAX: Final = 256
STORE_SWEEP_MINUTES: Final = 5.0
STORE_SWEEP_ROWS: Final = 1000
INDEX_ENTRY_BYTES_MAX: Final = 2704
"""The largest entry of a Postgres B-tree."""

# The user's own application
CUSTOM_APP_START_S: Final = 60.0
CUSTOM_APP_STOP_S: Final = 3.0
"""Below what `slipstream dev` gives the API to stop."""

assert STORE_NAMESPACE_BYTES_MAX + STORE_KEY_BYTES_MAX + STORE_FIELD_BYTES_MAX + TOKEN_CHARS_MAX + 128 < (
    INDEX_ENTRY_BYTES_MAX
), "tenant, namespace, key and field are one entry"
assert STORE_VALUE_BYTES_MAX < BODY_BYTES_MAX

# Auth
AUTH_HANDLER_DEADLINE_S: Final = 5.0
"""How long a handler of the user's may take over one request; then the request fails, closed."""
AUTH_THREADS: Final = 32
"""Handlers that are no coroutines run here; one that never returns keeps its thread."""
AUTH_FILTER_DEPTH_MAX: Final = 4
AUTH_FILTER_TERMS_MAX: Final = 64
AUTH_USER_BYTES_MAX: Final = 64 * 1024
"""The user that goes into each run's record."""

assert RECORD_LINES_MAX <= 256, "seq holds the line in eight bits"
assert RECORD_BYTES_MAX < MESSAGE_BYTES_MAX
assert 6 * INTERRUPTS_BYTES_MAX + 8 * ERROR_TEXT_CHARS_MAX < LINE_BYTES_MAX
assert BODY_BYTES_MAX < MESSAGE_BYTES_MAX, "a command must fit into one record"
assert PUBLISH_DEADLINE_S < DUPLICATE_WINDOW_S / 2
assert HISTORY_PAGE_BYTES_MAX < MESSAGE_BYTES_MAX
assert STATE_UPDATE_DEADLINE_S < TRANSACTION_DEADLINE_S < DATABASE_DEADLINE_S, "a run waits for a fence row in vain"
assert DATABASE_DEADLINE_S + STATE_UPDATE_DEADLINE_S + PUBLISH_DEADLINE_S < STATE_ANSWER_DEADLINE_S
assert 2 * WORK_HEARTBEAT_S < ACK_WAIT_S
assert SSE_SEND_DEADLINE_S < RETENTION_QUIET_S, "a reader that is behind has been dropped by then"
assert (PINGS_UNANSWERED_MAX + 1) * PING_INTERVAL_S + WORK_HEARTBEAT_S < ACK_WAIT_S, "a dead link costs no run"
assert PEER_SILENCE_S < DATABASE_DEADLINE_S
assert 2 * PULL_IDLE_HEARTBEAT_S < PULL_EXPIRES_S
assert METRICS_SAMPLE_DEADLINE_S < METRICS_SAMPLE_AGE_S
assert WEBHOOK_CONNECT_DEADLINE_S < WEBHOOK_DEADLINE_S < WEBHOOK_CLAIM_S, "a try that goes on is nobody else's"
assert WEBHOOK_GIVE_UP_S + WEBHOOK_RETRY_S_MAX < WEBHOOK_KEPT_S
