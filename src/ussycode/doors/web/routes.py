"""Which function answers which path, on the base domain and on VM hosts."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ussycode.base.errors import ErrorCode, Kind
from ussycode.doors.web.asked import Asked

Handler = Callable[[Request, Asked], Awaitable[Response]]
H = TypeVar("H")
Tail = Callable[[Request, Asked, str], Awaitable[Response]]

NO_PAGE = ErrorCode("http.no_page", Kind.UNKNOWN_COMMAND, "there is nothing at this address", hint="begin at {home}")


@dataclass(frozen=True)
class NotAllowed(Exception):
    """The path exists, the method does not. `allow` is the header's value."""

    allow: str


@dataclass(frozen=True)
class Routes:
    """Exact paths, and prefixes whose last segment is handed over. HEAD is answered like GET."""

    exact: Mapping[str, Mapping[str, Handler]]
    under: Mapping[str, Mapping[str, Tail]] = field(default_factory=dict)

    async def answer(self, request: Request, asked: Asked, home: str) -> Response:
        """The response. Raises NO_PAGE or NotAllowed."""
        path = request.scope["path"]
        method = "GET" if request.method == "HEAD" else request.method
        if (handlers := self.exact.get(path)) is not None:
            return await _pick(handlers, method)(request, asked)
        prefix, slash, tail = path.rpartition("/")
        if (tails := self.under.get(prefix + slash)) is not None and tail:
            return await _pick(tails, method)(request, asked, tail)
        raise NO_PAGE(home=home)


def _pick(handlers: Mapping[str, H], method: str) -> H:
    if method not in handlers:
        raise NotAllowed(", ".join(sorted(handlers)))
    return handlers[method]
