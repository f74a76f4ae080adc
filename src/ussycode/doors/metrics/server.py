"""`/metrics`, `/healthz` and the question of a TLS terminator, on a port that only this machine reaches."""
from __future__ import annotations

import asyncio
import hmac
import socket
from pathlib import Path
from urllib.parse import parse_qs

from ussycode.domains import ops as domains
from ussycode.doors.metrics.edges import gather
from ussycode.ports import App
from ussycode.sharing.certificates import CertificateRule

MAX_HEAD = 8192
"""Bytes of a request's head."""
HEAD_SECONDS = 10.0
"""Time a client may take for its request."""


async def serve_metrics(app: App, listening: socket.socket, edges: Path, secret: str = "") -> None:
    """Answer on a listening socket until cancelled; one request for each connection.

    `edges` is the folder with the sockets on which edges tell their own figures; they are part of `/metrics`.
    Whoever knows `secret` is handed certificates with their keys; nobody when it is empty.
    """
    rule = CertificateRule(app)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                line = head.split(b"\r\n", 1)[0]
                told = await gather(edges) if b"/metrics" in line else b""
                asked = _certificate(line)
                allowed = await rule.allows(asked) if asked else False
                wanted = _handed_out(line, secret)
                if wanted is not None:
                    writer.write(_pem(await domains.pem(app, wanted)))
                else:
                    writer.write(_response(app, line, told, allowed))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that does not ask properly gets nothing
        finally:
            writer.close()

    server = await asyncio.start_server(answer, sock=listening, limit=MAX_HEAD)
    async with server:
        await server.serve_forever()


def _certificate(line: bytes) -> str:
    """The name in `GET /certificate?domain=NAME`, which a terminator asks before it gets a certificate."""
    target = line.split(b" ")[1:2]
    path, _, query = (target[0] if target else b"").decode("latin-1").partition("?")
    return parse_qs(query).get("domain", [""])[0].lower() if path == "/certificate" else ""


def _handed_out(line: bytes, secret: str) -> str | None:
    """The name in `GET /certificate/SECRET?server_name=NAME`, by which a terminator fetches what we keep for it."""
    target = line.split(b" ")[1:2]
    path, _, query = (target[0] if target else b"").decode("latin-1").partition("?")
    shown = path.removeprefix("/certificate/")
    if not secret or shown == path or not hmac.compare_digest(shown.encode("latin-1"), secret.encode()):
        return None
    return parse_qs(query).get("server_name", [""])[0].lower()


def _pem(found: bytes) -> bytes:
    return _said(b"200 OK", found, b"application/x-pem-file") if found else _said(b"204 No Content", b"")


def _response(app: App, line: bytes, told: bytes, allowed: bool) -> bytes:
    method, _, rest = line.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _said(b"405 Method Not Allowed", b"only GET\n")
    if path == b"/metrics":
        return _said(b"200 OK", app.telemetry.metrics() + told, b"text/plain; version=0.0.4; charset=utf-8", method)
    if path == b"/certificate":
        return _said(b"200 OK", b"yes\n") if allowed else _said(b"403 Forbidden", b"no\n")
    if path == b"/healthz":
        return _said(b"200 OK", b"ok\n", head=method)
    return _said(b"404 Not Found", b"there are /metrics and /healthz\n", head=method)


def _said(status: bytes, body: bytes, kind: bytes = b"text/plain; charset=utf-8", head: bytes = b"GET") -> bytes:
    top = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n" % (status, kind, len(body))
    return top + b"X-Content-Type-Options: nosniff\r\n\r\n" + (b"" if head == b"HEAD" else body)
