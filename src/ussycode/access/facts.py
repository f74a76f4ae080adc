"""What a decision is made from. Plain values; who gathers them does not judge."""
from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


class Role(enum.StrEnum):
    """Trust level of an account, least first."""

    GUEST = "guest"
    """Came for what is shared with them; has no VMs."""
    NEWBIE = "newbie"
    CITIZEN = "citizen"
    OPERATOR = "operator"
    ADMIN = "admin"


class Via(enum.StrEnum):
    """How the caller proved who they are."""

    NOBODY = "nobody"
    SSH_KEY = "ssh-key"
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    SESSION = "session"


@dataclass(frozen=True)
class Caller:
    """Who asks. `user` is empty for nobody. `commands` limits a token; None means no limit."""

    user: str = ""
    handle: str = ""
    role: Role = Role.NEWBIE
    via: Via = Via.NOBODY
    key: str = ""
    """Fingerprint of the SSH key that proved it (`SHA256:…`), also behind a token; empty otherwise."""
    commands: frozenset[str] | None = None
    email: str = ""
    """Verified address, or empty."""
    tag: str = ""
    """It reaches VMs with this tag only; empty for no such limit."""
    expires: float | None = None
    """Unix seconds at which a token ends; None for what does not end by itself."""

    @property
    def known(self) -> bool:
        """Signed in as somebody."""
        return bool(self.user)


NOBODY = Caller()
PRIMARY = 0
"""Port of a grant that follows the VM's primary port, whichever that is."""


class Level(enum.StrEnum):
    """What a grant gives. Teams are a kind of holder, not a level of their own."""

    WEB = "web"
    """One port over HTTPS, and nothing else."""
    SHELL = "shell"
    """A shell, and with it every port."""


@dataclass(frozen=True)
class Grant:
    """What an owner gave to one person on one VM."""

    level: Level = Level.WEB
    port: int = PRIMARY
    link: bool = False
    """It came through a share link."""
    expires: float = 0.0
    """Unix seconds; 0 for never."""


@dataclass(frozen=True)
class VmFacts:
    """What the decision needs of a VM."""

    vm: str
    name: str
    owner: str
    public_ports: frozenset[int] = frozenset()
    primary_port: int = 8000
    grants: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict, hash=False)
    """By user id."""
    tags: frozenset[str] = frozenset()
    takes_mail: bool = False


@dataclass(frozen=True)
class Facts:
    """One question's facts. `vm` is None when the name means nothing; `port` is None outside HTTPS."""

    caller: Caller
    vm: VmFacts | None = None
    port: int | None = None
    command: str = ""
    """Full command path (`share show`) plus ` VM` where a token may name one (`ssh demo`)."""
    now: float = math.inf
    """Unix seconds. Who does not say the time finds every grant with an end at its end."""
