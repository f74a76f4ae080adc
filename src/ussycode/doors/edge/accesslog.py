"""One JSON line per request, buffered and written every 50 ms."""
from __future__ import annotations

import os
from pathlib import Path

FLUSH_EVERY = 0.05
"""Seconds between writes."""
MAX_PATH = 512
"""Characters of a path that are logged. Queries are not: they carry secrets."""
MAX_FILE = 64 << 20
"""Bytes after which the log moves aside to NAME.1, replacing the one before."""
MAX_BUFFER = 20_000
"""Lines kept between two writes; more are counted, not kept."""


class AccessLog:
    """Lines of one process in one file; an empty path keeps nothing."""

    def __init__(self, path: str, level: str) -> None:
        self.lost = 0
        """Lines that could not be written."""
        self._path = Path(path) if path else None
        self._everything = level == "info"
        self._lines: list[bytes] = []
        self._fd = self._open()

    def request(
        self, at: float, request_id: bytes, address: bytes, host: bytes, method: bytes, path: bytes, status: int,
        reason: str, user: str, seconds: float, size: int,
    ) -> None:
        """Note one request. `at` is unix time; `address` is the visitor's, `size` the bytes sent to it."""
        if self._fd < 0 or not (self._everything or status >= 500 or status == 400):
            return
        if len(self._lines) >= MAX_BUFFER:
            self.lost += 1
            return
        path = path[:MAX_PATH]
        if b'"' in path or b"\\" in path:
            path = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        self._lines.append(
            b'{"ts":%.3f,"id":"%b","from":"%b","host":"%b","method":"%b","path":"%b","status":%d,"reason":"%b",'
            b'"user":"%b","ms":%.2f,"bytes":%d}\n' % (
                at, request_id, address, host, method, path, status, reason.encode(), user.encode(), seconds * 1e3,
                size,
            )
        )

    def flush(self) -> None:
        """Write what is buffered. A full disk costs lines, never requests."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            os.write(self._fd, b"".join(lines))
            if os.fstat(self._fd).st_size > MAX_FILE:
                self._rotate()
        except OSError:
            self.lost += len(lines)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._path is None:
            return -1
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _rotate(self) -> None:
        assert self._path is not None
        self._path.rename(self._path.with_name(self._path.name + ".1"))
        os.close(self._fd)
        self._fd = self._open()
