"""A small server for the built site: its files and nothing else, whatever is asked for."""

from __future__ import annotations

import errno
import functools
import http.server
import io
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from descent.book.sources.project import BookError, Project

PORTS = range(65536)
INDEX = ("index.html", "index.htm")
"""What the standard library's handler sends for a folder."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """A handler that answers an address which leads nowhere, or out of the site, with the book's own page."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Send the headers and return the file asked for, None after an error."""
        try:
            if self._inside():
                return super().send_head()
            self.send_error(http.HTTPStatus.NOT_FOUND)
        except ValueError:  # a NUL in the address, half a character, half a host
            self.send_error(http.HTTPStatus.BAD_REQUEST)
        return None

    def _inside(self) -> bool:
        """Tell whether what would be sent lies in the site, links followed."""
        asked = self.translate_path(self.path)
        site, *paths = map(os.path.realpath, (self.directory, asked, *(os.path.join(asked, name) for name in INDEX)))
        return all(Path(path).is_relative_to(site) for path in paths)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send 404.html where there is one, the server's words otherwise."""
        page = Path(self.directory) / "404.html"
        if code != http.HTTPStatus.NOT_FOUND or not page.is_file():
            super().send_error(code, message, explain)
            return
        content = page.read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Silent(Handler):
    """A handler that logs no requests."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A server that reports what goes wrong with a request in one line, and goes on."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless it is only that the reader has gone."""
        fault = sys.exception()
        if not isinstance(fault, ConnectionError):
            print(f"{client_address[0]}: {type(fault).__name__}: {fault}", file=sys.stderr)


def server(project: Project, host: str, port: int, *, quiet: bool = False) -> Server:
    """Return a server for the built site.

    Raises: BookError when there is no site, or when nothing can listen at that address.
    """
    if not (project.html / "index.html").is_file():
        raise BookError("there is no site yet; run `make book` first")
    if port not in PORTS:
        raise BookError(f"--port {port}: a port is a number from 0 to {PORTS[-1]}, 0 for any that is free")
    handler = functools.partial(Silent if quiet else Handler, directory=str(project.html))
    try:
        return Server((host, port), handler)
    except OSError as fault:
        raise BookError(_refused(host, port, fault)) from None
    except (TypeError, ValueError):  # no name of a host at all
        raise BookError(f"--host {host}: this is no address; use 127.0.0.1 for this machine only") from None


def _refused(host: str, port: int, fault: OSError) -> str:
    """Return why nothing can listen at an address, and what to do."""
    if fault.errno == errno.EADDRINUSE:
        return f"--port {port} is in use on {host}: stop what listens there, or choose another, 0 for any that is free"
    if fault.errno in (errno.EACCES, errno.EPERM):
        return f"--port {port} is not yours to listen at ({fault.strerror}); choose one from 1024"
    return f"--host {host}: nothing can listen there ({fault.strerror}); use 127.0.0.1 for this machine only"
