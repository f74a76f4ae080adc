"""HTTP trailers under uvicorn, which has none: the last chunk is written with our lines after it."""
from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

LAST_CHUNK = b"0\r\n\r\n"
KEY = "ussycode.trailers"


def set_trailers(scope: Scope, lines: list[tuple[bytes, bytes]]) -> None:
    """Send `lines` after the body that is about to end. Without our protocol class they are left out."""
    scope.setdefault(KEY, []).extend(lines)


class TrailerProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, whose responses may have trailers."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        lines: list[tuple[bytes, bytes]] = []
        cycle.scope[KEY] = lines  # type: ignore[literal-required]
        cycle.transport = _Trailing(cycle.transport, lines)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)


class _Trailing:
    def __init__(self, transport: asyncio.Transport, lines: list[tuple[bytes, bytes]]) -> None:
        self._transport = transport
        self._lines = lines

    def write(self, data: bytes) -> None:
        if self._lines and data == LAST_CHUNK:
            data = b"0\r\n" + b"".join(b"%b: %b\r\n" % line for line in self._lines) + b"\r\n"
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
