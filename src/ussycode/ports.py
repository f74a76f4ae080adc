"""The outside as protocols, and the frozen App that every use case is given."""
from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ussycode.access.decide import Permit
from ussycode.access.facts import Caller
from ussycode.base.clock import Clock
from ussycode.base.db import Database
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.base.telemetry import Telemetry
from ussycode.config import Config
from ussycode.runtime.driver import Sample, Spare
from ussycode.runtime.export import Export, Form
from ussycode.runtime.guest.channel import Port
from ussycode.runtime.guest.execs import ExecSpec, ExecStream
from ussycode.runtime.guest.listeners import Listener
from ussycode.runtime.guest.streams import Stream
from ussycode.runtime.images.pull import Pull
from ussycode.runtime.images.store import Image
from ussycode.runtime.images.uploads import Upload

T = TypeVar("T")
CUT_OFF = ErrorCode("import.cut_off", Kind.BAD_REQUEST, "the file did not come whole: the connection ended before it")
MAX_USES = 100_000
"""Keys and tokens whose use is noted between two writes; of further ones the time is not kept."""


class NodeLink(Protocol):
    """Streams into VMs, wherever they run. Every verb raises a declared Failure when the VM cannot be reached."""

    async def claim(self, image: str, vcpus: int, memory_mib: int, disk_gib: int) -> Spare | None:
        """A machine that stands by and fits, kept for the VM that is recorded next with its id and number."""
        ...

    async def give_back(self, spare: Spare) -> None:
        """No VM was recorded with it."""
        ...

    async def dial(self, vm: str, port: int, host: str = "") -> Stream:
        """Raw bytes to a TCP port inside the guest, loopback included."""
        ...

    async def dial_path(self, vm: str, path: str, user: str = "") -> Stream:
        """Raw bytes to a unix socket inside the guest, opened with the rights of `user` (root when empty)."""
        ...

    async def open_exec(self, vm: str, spec: ExecSpec) -> ExecStream:
        """A command or a login shell in the guest."""
        ...

    async def open_sftp(self, vm: str, user: str = "") -> Stream:
        """SFTP version 3 packets served inside the guest."""
        ...

    async def listen(self, vm: str, user: str = "", host: str = "", port: int = 0, path: str | None = None) -> Listener:
        """A TCP port (`path` None) or a unix socket (`path` empty: a private one is made) inside the guest."""
        ...


    async def export(self, vm: str, form: Form) -> Export:
        """A VM's disk, as it is now, as a file."""
        ...

    async def sample(self, vm: str) -> Sample | None:
        """What a VM uses now; None when it does not run or does not say."""
        ...

    async def listening(self, vm: str) -> Sequence[Port] | None:
        """TCP ports on which something listens in a VM; None when it does not run or does not say."""
        ...


class ImageCatalog(Protocol):
    """Images that `new --image` may name."""

    def names(self) -> Sequence[str]:
        """Names that are ready to boot."""
        ...

    def login_user(self, image: str) -> str:
        """The user a shell of that image belongs to."""
        ...

    def default_port(self, image: str) -> int:
        """Port that the image's VMs show over HTTPS until another is chosen."""
        ...

    def find(self, image: str) -> Image | None:
        """What is known of an image that is here."""
        ...

    async def pull(self, wanted: Pull, show: Callable[[str], Awaitable[None]]) -> Image:
        """Bring an image from its registry, or find it here. Raises a declared Failure."""
        ...

    async def take_in(self, upload: Upload, show: Callable[[str], Awaitable[None]]) -> Image:
        """Make a private image of a file that is sent. Raises a declared Failure."""
        ...

    async def forget(self, image: str) -> None:
        """Remove a pulled image that no VM stands on. Idempotent."""
        ...

    async def evict(self, in_use: frozenset[str]) -> Sequence[str]:
        """Remove pulled images, those nobody asked for longest first, until the cache fits; their names."""
        ...


@dataclass
class Waiters:
    """Who waits for a subject to change. Woken by events after their commit, never by a timer."""

    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)

    async def heard(self, events: Sequence[Event]) -> None:
        """Wake everyone who waits for the subjects of `events`."""
        for event in events:
            for waiter in self._waiting.get(event.subject, ()):
                waiter.set()

    async def until(self, subject: str, check: Callable[[], Awaitable[T | None]], seconds: float) -> T | None:
        """First result of `check` that is not None, asked again after each event on `subject`; None when time is up."""
        woken = asyncio.Event()
        self._waiting.setdefault(subject, set()).add(woken)
        try:
            async with asyncio.timeout(seconds):
                while (found := await check()) is None:
                    await woken.wait()
                    woken.clear()
                return found
        except TimeoutError:
            return None
        finally:
            self._waiting[subject].discard(woken)
            if not self._waiting[subject]:
                del self._waiting[subject]


@dataclass
class Uses:
    """When keys and tokens were used last, gathered here and written now and then: a read must not cost a write."""

    clock: Clock
    _seen: dict[str, float] = field(default_factory=dict)

    def note(self, subject: str) -> None:
        """`subject` (`key:FINGERPRINT` or `handle:ID`) was used now."""
        if len(self._seen) < MAX_USES or subject in self._seen:
            self._seen[subject] = self.clock.now()

    def latest(self, subject: str, kept: float) -> float:
        """When `subject` was used last: noted here, or `kept` already."""
        return max(self._seen.get(subject, 0.0), kept)

    def take(self) -> dict[str, float]:
        """What was noted since the last call, by subject in unix seconds."""
        seen, self._seen = self._seen, {}
        return seen


@dataclass(frozen=True)
class App:
    """Everything a use case may need; nothing in it is optional."""

    config: Config
    db: Database
    clock: Clock
    link: NodeLink
    images: ImageCatalog
    waiters: Waiters
    telemetry: Telemetry
    nudge: Callable[[], None]
    """Ask the reconciler to look now."""
    uses: Uses
    host_key: str
    """Public host key of the SSH door: `ssh-ed25519 AAAA…`."""


Undo = Callable[[], Awaitable[str]]
"""Takes back what a command began, and says so in a sentence."""


class Talk(Protocol):
    """What a command may say while it runs. Silent when nobody sits in front."""

    @property
    def tty(self) -> bool:
        """A person at a terminal: questions may be asked."""
        ...

    async def progress(self, text: str) -> None:
        """Show where a long command is; replaces the line shown before."""
        ...

    async def read_stdin(self, limit: int) -> bytes:
        """Everything piped in, at most `limit` bytes; empty where there is no input."""
        ...

    def undone_by(self, undo: Undo) -> None:
        """What to do when the person in front presses Ctrl-C; a command that never says so goes on without them."""
        ...

    def incoming(self) -> AsyncIterator[bytes] | None:
        """What is piped in, as it arrives; None where nothing can be. Raises CUT_OFF when its sender left."""
        ...


class Silent:
    """Nobody listens: `/exec`, the dashboard, pipes without input."""

    tty = False

    async def progress(self, text: str) -> None:
        """Say nothing."""

    async def read_stdin(self, limit: int) -> bytes:
        """No input."""
        return b""

    def undone_by(self, undo: Undo) -> None:
        """Nobody can press a key."""

    def incoming(self) -> AsyncIterator[bytes] | None:
        """No input."""
        return None


@dataclass(frozen=True)
class Ctx:
    """One running command: who asked, what was allowed, and how to talk back."""

    app: App
    caller: Caller
    permit: Permit
    permits: dict[str, Permit]
    """For commands that name several VMs: a permit by VM name; the ones not found are missing."""
    talk: Talk
    request_id: str


@dataclass(frozen=True)
class Attach:
    """What `ssh VM` returns: the door performs it, `/exec` streams it."""

    vm: str
    name: str
    user: str
    command: str | None
    """None asks for a login shell."""
    until: float = math.inf
    """Unix seconds after which it must be asked for again."""


@dataclass(frozen=True)
class Download:
    """What `export` returns: the door sends it, and closes it in any case."""

    name: str
    """What the file may be called; a VM's name and an ending."""
    export: Export
