"""Fresh request ids without asking the kernel for chance every time."""
from __future__ import annotations

import os

_SIZE = 16
"""Characters of one id, each of a-z2-7: 80 random bits, as in `base.ids`."""
_BATCH = 256
"""Ids made at once, in some 50 µs."""
_LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""One letter for each value of a random byte, all equally likely."""


class RequestIds:
    """Ids such as `req_k3j2…`, as header values."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []

    def new(self) -> bytes:
        """An id never given before."""
        if not self._ready:
            block = os.urandom(_SIZE * _BATCH).translate(_LETTERS)
            self._ready = [b"req_" + block[at : at + _SIZE] for at in range(0, len(block), _SIZE)]
        return self._ready.pop()
