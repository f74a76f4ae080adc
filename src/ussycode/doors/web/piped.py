"""A request's body as what is piped into a command."""
from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from ussycode.ports import CUT_OFF, Silent


class Piped(Silent):
    """Nobody reads progress; the body is there as it arrives."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def incoming(self) -> AsyncIterator[bytes]:
        """The body. Raises CUT_OFF."""
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._request.stream():
                yield piece
        except ClientDisconnect:
            raise CUT_OFF() from None
