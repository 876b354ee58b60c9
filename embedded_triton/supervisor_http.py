"""``/livez``, ``/readyz``, ``/readyz/MODEL``, ``/status`` and ``/metrics`` of the supervisor.

For load balancers and Prometheus: Triton's own ready endpoint stays true for models that no longer
answer.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from contract.errors import ServerSetupError
from embedded_triton.supervisor import Supervisor

HOST = "127.0.0.1"
_READ_TIMEOUT_SECONDS = 5.0


class SupervisorEndpoint:
    """Serves in a thread until ``close``. Port 0 picks a free one."""

    def __init__(self, supervisor: Supervisor, port: int) -> None:
        class Handler(_Handler):
            pass

        Handler.supervisor = supervisor
        try:
            self._server = ThreadingHTTPServer((HOST, port), Handler)
        except OSError as error:
            raise ServerSetupError(
                f"port {port} is taken",
                where=f"{HOST}:{port}",
                got=error.strerror or str(error),
                next_command="choose another one: --supervisor-port 0",
            ) from error
        self._server.daemon_threads = True
        self.url = f"{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="endpoint", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    supervisor: Supervisor
    protocol_version = "HTTP/1.1"
    timeout = _READ_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0]).rstrip("/")
        if path == "/livez":
            self._answer(200, b"live\n")
        elif path == "/readyz":
            self._ready(None)
        elif path.startswith("/readyz/"):
            self._ready(path.removeprefix("/readyz/"))
        elif path == "/status":
            body = json.dumps(self.supervisor.health.document()).encode()
            self._answer(200, body, "application/json")
        elif path == "/metrics":
            text = self.supervisor.metrics.text()
            self._answer(200, text, "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer(404, b"/livez /readyz /readyz/MODEL /status /metrics\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _ready(self, model: str | None) -> None:
        try:
            reasons = self.supervisor.health.why_not_ready(model)
        except KeyError:
            self._answer(404, b"no such model\n")
            return
        if reasons:
            self._answer(503, "".join(f"{reason}\n" for reason in reasons).encode())
        else:
            self._answer(200, b"ready\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: a load balancer asks every second."""
