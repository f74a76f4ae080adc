"""A VM's domain, and what DNS says about it."""
from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass


class Covers(enum.StrEnum):
    """Which hosts a domain stands for: itself, every name one label below it, or both."""

    EXACT = "exact"
    BELOW = "below"
    BOTH = "both"


class Proof(enum.StrEnum):
    """What in DNS shows that a domain's owner wants it here."""

    NONE = ""
    TXT = "txt"
    """`_ussycode.NAME` holds the account's value."""
    CNAME = "cname"
    """NAME leads to the VM's own host."""
    DELEGATION = "delegation"
    """`_acme-challenge.NAME` leads to the account's own name in our zone."""
    PLATFORM = "platform"
    """NAME leads to the platform's domain."""
    ADDRESS = "address"
    """NAME has our addresses, and no others."""

    @property
    def shared(self) -> bool:
        """It says that the platform is meant, and not which account."""
        return self in (Proof.PLATFORM, Proof.ADDRESS)


@dataclass(frozen=True)
class VmDomain:
    """A domain that a VM's owner claimed. Times in unix seconds, 0 for never.

    `target` is the host of the VM that NAME led to when it was proven: a VM that is renamed keeps its domains.
    """

    id: str
    vm: str
    owner: str
    name: str
    covers: Covers
    created_at: float
    verified_at: float = 0.0
    proof: Proof = Proof.NONE
    target: str = ""
    failing_since: float = 0.0
    checked_at: float = 0.0
    check_at: float = 0.0
    checks: int = 0
    why: str = ""

    @property
    def verified(self) -> bool:
        """It is served."""
        return self.verified_at > 0

    @property
    def patterns(self) -> tuple[str, ...]:
        """What it stands for: names, and `*.NAME` for all names one label below."""
        exact, below = (self.name,), (f"*.{self.name}",)
        return {Covers.EXACT: exact, Covers.BELOW: below, Covers.BOTH: exact + below}[self.covers]

    @property
    def wildcard(self) -> bool:
        """It stands for names below it."""
        return self.covers is not Covers.EXACT

    @property
    def shown(self) -> str:
        """As its owner wrote it."""
        return f"*.{self.name}" if self.covers is Covers.BELOW else self.name

    @property
    def value(self) -> str:
        """The account's value for this name in DNS: the same on every VM of the account, different for any other.

        It need not be a secret: only who writes the name's DNS can put it there.
        """
        return hashlib.sha256(f"{self.owner}:{self.name}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Seen:
    """What DNS answered about one name. `failed` says that some answer did not come, so that absence means nothing."""

    chain: tuple[str, ...] = ()
    """Names that the name leads to, in order, up to the first of ours."""
    addresses: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    """Of `_ussycode.NAME`."""
    delegated: tuple[str, ...] = ()
    """Names that `_acme-challenge.NAME` leads to."""
    failed: bool = False


@dataclass(frozen=True)
class Place:
    """What a name may lead to: the platform's domain, this VM's host, our addresses, and the zone of delegations."""

    domain: str
    host: str
    addresses: frozenset[str]
    zone: str


@dataclass(frozen=True)
class Finding:
    """Whether DNS proves a claim. `sure` is false when DNS did not answer; `why` tells the owner what is missing."""

    proof: Proof
    target: str = ""
    sure: bool = True
    why: str = ""
