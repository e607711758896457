"""The API's process."""

import asyncio
import gc
import logging
import signal
import socket
from pathlib import Path

import uvicorn

from slipstream_api.app import opened, serving
from slipstream_api.bounded_http import bounded
from slipstream_api.bounded_socket import BoundedSocket
from slipstream_api.http_settings import load_http_settings
from slipstream_api.in_order import InOrder
from slipstream_api.observed import Observed
from slipstream_api.open_files import room_of_process
from slipstream_schemas.errors import SlipstreamError, Unavailable
from slipstream_schemas.limits import (
    BODY_BYTES_MAX,
    LISTEN_BACKLOG,
    SOCKET_PING_S,
    SSE_HEARTBEAT_S,
    SSE_SEND_DEADLINE_S,
)
from slipstream_schemas.settings import ServiceSettings, log_to_stderr, settings_from_environment

log = logging.getLogger("slipstream.api")

STUCK_PEER_MS = int(1000 * (SSE_SEND_DEADLINE_S + 2 * SSE_HEARTBEAT_S))
"""Later than we drop a client that reads nothing, and say so: the kernel takes it for a dead one, too."""
STOP_DEADLINE_S = 5


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose dead peers are dropped by the kernel. Raises: Unavailable when the port is taken."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_PEER_MS)
    try:
        found.bind((host, port))
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}. Choose another port") from error
    found.listen(LISTEN_BACKLOG)
    return found


def spare_the_old() -> None:
    """Look at what lives long less often: a full collection stops everybody's events for 0.1 s for 1,000 streams.

    What refers to itself is still freed, within 700,000 objects (70,000 by default); the rest never waits for that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 100)


async def run(settings: ServiceSettings) -> None:
    """Serve until SIGTERM; open streams end at once, so that their clients resume elsewhere."""
    http, room = load_http_settings(Path(settings.config)), room_of_process()
    listening = listen(settings.host, settings.port)
    async with opened(settings) as context, serving(context, http) as app:
        config = uvicorn.Config(
            Observed(InOrder(app), context), log_config=None, log_level="warning", access_log=False,
            lifespan="off", timeout_graceful_shutdown=STOP_DEADLINE_S, http=bounded(room), ws=BoundedSocket,
            ws_max_size=BODY_BYTES_MAX, ws_ping_interval=SOCKET_PING_S, ws_ping_timeout=SSE_SEND_DEADLINE_S,
            backlog=LISTEN_BACKLOG,
        )  # fmt: skip
        server = _Server(config)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            context.heart.close()
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        spare_the_old()
        log.info("ready: API on http://%s:%d", settings.host, settings.port)
        beating = asyncio.create_task(context.heart.run())
        await server.serve(sockets=[listening])
        beating.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: streams must end before it waits for them."""

    def install_signal_handlers(self) -> None:
        """Nothing to install."""

    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Nothing to capture."""
        import contextlib

        return contextlib.nullcontext()


def main() -> None:
    """The process."""
    try:
        settings = settings_from_environment()
        log_to_stderr(settings.log_level, settings.log_format)
        uvicorn_loop(settings)
    except SlipstreamError as error:
        raise SystemExit(f"slipstream api: {error.message}") from error


def uvicorn_loop(settings: ServiceSettings) -> None:
    """Run on uvloop where it exists."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(settings))
        return
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
