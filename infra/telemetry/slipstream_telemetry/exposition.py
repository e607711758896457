"""Figures over HTTP, for processes that serve nothing else.

The answers come from a thread: a graph that blocks the runner's event loop is when its figures are looked at.
"""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from slipstream_schemas.errors import Unavailable

PATH: Final = "/metrics"
PEER_DEADLINE_S: Final = 5.0


def render(registry: CollectorRegistry, accept: str = "") -> tuple[str, bytes]:
    """The content type and the text, in the form that the scraper asks for."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer `GET /metrics` until the process ends. Raises: Unavailable when the port is taken."""

    class Answer(BaseHTTPRequestHandler):
        timeout = PEER_DEADLINE_S

        def do_GET(self) -> None:
            """Answer."""
            if self.path.partition("?")[0] != PATH:
                self.send_error(404)
                return
            content_type, body = render(registry, self.headers.get("accept", ""))
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not logged."""

    try:
        server = (_Server6 if ":" in host else _Server)((host, port), Answer)
    except OSError as error:
        raise Unavailable(f"cannot serve metrics on {host}:{port}: {error.strerror}. Choose another port") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
