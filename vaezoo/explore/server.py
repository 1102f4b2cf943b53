"""A server for the page on this machine alone, with the headers that threads in a browser need."""

from __future__ import annotations

import errno
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlunsplit

from vaezoo.errors import VaezooError

HOST = "127.0.0.1"
HEADERS = {
    # A page gets shared memory, and so threads, if nothing of another origin can be in it.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # a page that was written again is seen at once
}


class PageHandler(SimpleHTTPRequestHandler):
    """Serves the files of a folder, without a log and without listings."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
    }

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: object) -> BinaryIO | None:  # type: ignore[override]
        """Overridden: the folder of the page has an index, and others are not for browsers."""
        self.send_error(404)
        return None

    def log_message(self, *_: object) -> None:
        """Overridden: the terminal shows the address only."""


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Returns a server of a folder on the loopback interface. Port 0 is any free one.

    Raises:
        VaezooError: If the port is taken, or not allowed.
    """
    try:
        return ThreadingHTTPServer((HOST, port), functools.partial(PageHandler, directory=str(folder)))
    except (OSError, OverflowError) as e:
        reason = "is in use" if getattr(e, "errno", None) == errno.EADDRINUSE else f"cannot be opened: {e}"
        raise VaezooError(f"port {port} {reason}", "give another --port, or --port 0 for any free one") from e


def address(server: ThreadingHTTPServer) -> str:
    """Returns the URL of a server's page."""
    return urlunsplit(("http", f"{HOST}:{server.server_port}", "/", "", ""))
