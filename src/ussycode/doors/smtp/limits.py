"""What one sender may take of the SMTP door, every bound by name."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_CONNECTIONS = 256
"""Open connections altogether."""
MAX_PER_ADDRESS = 10
"""Of one address."""
MAX_BYTES = 10 << 20
"""One mail, with the line ends it is sent with."""
MAX_HELD = 64 << 20
"""Bytes of all mails that are on their way in or into a guest at once."""
MAX_LINE = 8192
"""Bytes of one line of a mail; the standard has 1000."""
MAX_RECIPIENTS = 20
"""Of one mail."""
MAX_COMMANDS = 100
"""Of each kind in one connection."""
MAILS_PER_HOUR = 600
"""Mails that one address may begin, and recipients that are refused it, a tenth of them at once."""


@dataclass(frozen=True)
class Patience:
    """Seconds: until the next command, for one whole mail, for a connection, and until a client has heard goodbye."""

    command: float = 120.0
    mail: float = 300.0
    connection: float = 1800.0
    goodbye: float = 5.0


@dataclass
class Admission:
    """Counts connections; each one that `enter`s must `leave`."""

    open: int = 0
    _by_key: Counter[str] = field(default_factory=Counter)

    def enter(self, key: str) -> bool:
        """Let a connection in; False when there is no room. `key` tells clients apart, empty for one without limits."""
        if self.open >= MAX_CONNECTIONS or (key and self._by_key[key] >= MAX_PER_ADDRESS):
            return False
        self.open += 1
        self._by_key[key] += 1
        return True

    def leave(self, key: str) -> None:
        """It is gone."""
        self.open -= 1
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]


@dataclass
class Held:
    """Bytes of mails in memory."""

    size: int = 0

    def take(self, more: int) -> bool:
        """Room for `more` bytes; False when there is none, and nothing is taken then."""
        if self.size + more > MAX_HELD:
            return False
        self.size += more
        return True
