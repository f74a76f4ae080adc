"""How a VM is shared: its ports, the people it is shared with, and the links that bring more."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.facts import PRIMARY, Level


@dataclass(frozen=True)
class Ports:
    """The primary port and the ports that need no sign-in."""

    primary: int
    public: frozenset[int]

    @property
    def visibility(self) -> str:
        """`public` or `private`, of the primary port."""
        return "public" if self.primary in self.public else "private"


def resolve(chosen: dict[int, tuple[bool, bool]], default: int) -> Ports:
    """Ports from what was chosen; `default` is the image's own port."""
    primary = next((port for port, (first, _) in chosen.items() if first), default)
    return Ports(primary, frozenset(port for port, (_, public) in chosen.items() if public))


@dataclass(frozen=True)
class Share:
    """One row of who a VM is shared with: an account (`user`) or an e-mail address, never both.

    An address means whoever has proven it; until somebody has, the share is pending.
    """

    id: str
    vm: str
    port: int
    level: Level
    user: str
    address: str
    link: str
    """Id of the link it came through, or empty."""
    by: str
    expires: float
    """Unix seconds; 0 for never."""
    created_at: float
    holder: str = ""
    """The account that it opens the VM for; empty while it is pending."""
    handle: str = ""
    email: str = ""
    """Of the holder."""

    @property
    def told_email(self) -> str:
        """The address that the owner is told: the one they wrote, or of somebody who agreed to it by taking a link."""
        return self.address or (self.email if self.link else "")

    @property
    def name(self) -> str:
        """What the owner calls the holder: an address, or a handle. Neither leads to the other."""
        return self.told_email or self.handle

    @property
    def pending(self) -> bool:
        """Nobody has proven the address."""
        return not self.holder

    @property
    def level_word(self) -> str:
        """`web` or `root`, as exe.dev has it."""
        return "root" if self.level is Level.SHELL else "web"


@dataclass(frozen=True)
class Link:
    """A share link. Only the digest of its token is kept; `max_uses` 0 means any number."""

    id: str
    vm: str
    port: int
    digest: str
    label: str
    by: str
    max_uses: int
    use_count: int
    expires: float
    created_at: float
    last_used_at: float

    def open(self, now: float) -> bool:
        """It may be redeemed."""
        return (not self.expires or now < self.expires) and (not self.max_uses or self.use_count < self.max_uses)


def effective(port: int, primary: int) -> int:
    """The port that a share opens now."""
    return primary if port == PRIMARY else port
