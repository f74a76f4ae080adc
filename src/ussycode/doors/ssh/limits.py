"""What one client may take of the SSH door, every bound by name, and who is let in under them."""
from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_CONNECTIONS = 512
"""Open connections altogether."""
MAX_UNPROVEN = 64
"""Connections of one source address that have not signed in yet."""
MAX_PER_KEY = 64
"""Connections signed in with one key; more would let one account keep everyone out."""
LOGIN_SECONDS = 20
"""From the first byte to a finished sign-in."""
KEEPALIVE_SECONDS = 30
"""Silence after which a client is asked whether it is still there."""
KEEPALIVE_MISSES = 3
"""Unanswered questions after which it is gone."""
MAX_OFFERS = 20
"""Keys that one connection may offer."""
UNKNOWN_BURST = 60
"""Unknown keys that one source address may offer at once."""
UNKNOWN_PER_SECOND = 1.0
"""Unknown keys that it may offer for good."""
MAX_WATCHED = 4096
"""Source addresses whose unknown keys are counted; the longest quiet one is forgotten first."""
MAX_CHANNELS = 128
"""Sessions and forwarded connections at once in one connection."""
MAX_LISTENERS = 32
"""Ports and sockets that one connection may forward back."""
MAX_ENV = 64
"""Variables a client may send for a session."""
MAX_ENV_BYTES = 16 << 10
"""Names and values of them together."""
WINDOW = 1 << 20
"""Bytes a client may send on a channel before it must wait for us; asyncssh holds up to twice this."""
PACKET = 64 << 10
"""Largest packet a client may send."""
EDIT_LINE = 8 << 10
"""Characters that can be typed on one line of the lobby."""
HISTORY = 500
"""Lines the lobby's Up key goes back."""


@dataclass
class UnknownKeys:
    """A leaky bucket of unknown keys for each source address. `now` gives seconds, never going back."""

    now: Callable[[], float]
    _seen: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, address: str) -> bool:
        """Count one unknown key; False when this address offers too many."""
        now = self.now()
        level, at = self._seen.pop(address, (0.0, now))
        level = max(0.0, level - (now - at) * UNKNOWN_PER_SECOND)
        fits = level + 1 <= UNKNOWN_BURST
        self._seen[address] = (level + 1 if fits else level, now)
        if len(self._seen) > MAX_WATCHED:
            self._seen.popitem(last=False)
        return fits


@dataclass
class Admission:
    """Counts connections; each one that `enter`s must `leave`, and calls `proven` once it signed in."""

    open: int = 0
    _unproven: Counter[str] = field(default_factory=Counter)
    _by_key: Counter[str] = field(default_factory=Counter)

    def enter(self, address: str) -> bool:
        """Let a connection in; False when there is no room, and nothing is counted then."""
        if self.open >= MAX_CONNECTIONS or self._unproven[address] >= MAX_UNPROVEN:
            self._forget(address)
            return False
        self.open += 1
        self._unproven[address] += 1
        return True

    def proven(self, address: str) -> None:
        """It signed in and no longer counts against its address."""
        self._unproven[address] -= 1
        self._forget(address)

    def join(self, key: str) -> bool:
        """Count a connection for the key it signed in with; False when that key has MAX_PER_KEY already."""
        if self._by_key[key] >= MAX_PER_KEY:
            return False
        self._by_key[key] += 1
        return True

    def leave(self, address: str, proven: bool, key: str = "") -> None:
        """It is gone. `key` is set when `join` counted it."""
        self.open -= 1
        if key:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
        if not proven:
            self.proven(address)

    def _forget(self, address: str) -> None:
        if self._unproven[address] <= 0:
            del self._unproven[address]


class Environment(dict[bytes, bytes]):
    """The variables a client sends, kept within MAX_ENV and MAX_ENV_BYTES; what does not fit is dropped."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        others = sum(len(k) + len(v) for k, v in self.items() if k != name)
        if (name in self or len(self) < MAX_ENV) and others + len(name) + len(value) <= MAX_ENV_BYTES:
            super().__setitem__(name, value)
