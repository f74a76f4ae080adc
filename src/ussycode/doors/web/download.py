"""A file as the answer to a command."""
from __future__ import annotations

from collections import Counter

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ussycode.doors.web.stream import release
from ussycode.ports import Download


class Sent(Response):
    """A download whose size is told first, so that a client knows whether it got all of it."""

    def __init__(self, what: Download, counts: Counter[str], key: str) -> None:
        super().__init__(media_type="application/octet-stream", headers={
            "content-length": str(what.export.size), "content-disposition": f'attachment; filename="{what.name}"',
        })
        self._what, self._counts, self._key = what, counts, key
        counts[key] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; a client that leaves ends it with the next piece."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for piece in self._what.export.chunks():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._what.export.close()
            release(self._counts, self._key)
