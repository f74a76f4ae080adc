"""Fresh request ids without asking the kernel for chance every time."""
from __future__ import annotations

import base64
import os

_SIZE = 16
"""Characters of one id, each of a-z2-7: 80 random bits, as in `base.ids`."""
_BATCH = 1024
"""Ids made at once."""


class RequestIds:
    """Ids such as `req_k3j2…`, as header values."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []

    def new(self) -> bytes:
        """An id never given before."""
        if not self._ready:
            block = base64.b32encode(os.urandom(10 * _BATCH)).lower()
            self._ready = [b"req_" + block[at : at + _SIZE] for at in range(0, len(block), _SIZE)]
        return self._ready.pop()
