"""The worker's small web server: /metrics and the three probes, on a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from streampipe.observe.health import PROBES, Health

log = logging.getLogger(__name__)


class MetricsServer:
    """Serves until closed. `port` is the port it got, which matters when 0 (any free one) was asked for."""

    def __init__(self, host: str, port: int, exposition: Callable[[], bytes], health: Health) -> None:
        """Bind and start serving; raises OSError when the address cannot be had."""
        self._server = _Server((host, port), _handler(exposition, health))
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(host: str, port: int, exposition: Callable[[], bytes], health: Health) -> MetricsServer | None:
    """A running server, or None and a warning: the records matter more than watching them."""
    try:
        return MetricsServer(host, port, exposition, health)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        log.warning(
            "metrics and health are not served: %s:%d cannot be bound (%s); processing goes on, give another --port",
            host, port, reason,
        )  # fmt: skip
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # the base class's parameter
        """A client that hangs up is its own affair."""
        log.debug("request of %s failed", client_address, exc_info=True)


def _handler(exposition: Callable[[], bytes], health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing does not keep its thread

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/")
            if path == "metrics":
                self._answer(200, exposition(), CONTENT_TYPE_LATEST)
            elif path in PROBES:
                ok = health.ok(path)
                self._answer(200 if ok else 503, b"ok\n" if ok else b"not ok\n")
            else:
                self._answer(404, b"here are /metrics, /livez, /readyz and /startupz\n")

        do_HEAD = do_GET  # noqa: N815  # the base class asks for this name

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's parameter
            log.debug(format, *args)

    return Handler
