"""Certificates for domains of owners: made when a domain is proven, kept, renewed, told to edges with it.

    Certifier      makes and renews them
      Signer       who signs: the local authority, or an ACME server
"""
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.base.errors import printable
from ussycode.base.events import SYSTEM, Event
from ussycode.base.pki import Issuer, Leaf, is_local
from ussycode.domains import store
from ussycode.domains.model import Covers, VmDomain
from ussycode.ports import App

AT_A_TIME = 20
"""Certificates made in one round."""
ROUND_SECONDS = 60.0
"""Between two rounds."""
FIRST_WAIT, LAST_WAIT = 900.0, 12 * 3600.0
"""Seconds until a failed attempt is repeated: doubling from the first to the last. Public authorities refuse a name
for an hour after five failures."""
MAX_WHY = 300
"""Characters kept of the reason why an attempt failed."""

domain_certificates = sa.Table(
    "domain_certificates", metadata,
    sa.Column("domain", sa.String, sa.ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("chain", sa.LargeBinary, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("renew_at", sa.Float, nullable=False, index=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("why", sa.String, nullable=False),
)


@dataclass(frozen=True)
class Kept:
    """A domain's certificate: PEM chain and key, empty before the first; unix seconds of its end and its renewal."""

    domain: str
    chain: bytes
    key: bytes
    expires: float
    renew_at: float
    failures: int
    why: str


class Refused(Exception):
    """No certificate this time; the message is for the domain's owner."""


class Signer(Protocol):
    """Who signs certificates."""

    async def sign(self, domain: VmDomain) -> Leaf:
        """A certificate for a domain's patterns. Raises Refused."""
        ...


@dataclass(frozen=True)
class LocalSigner:
    """The local authority, by an intermediate that may not sign for the platform's own names."""

    issuer: Issuer

    async def sign(self, domain: VmDomain) -> Leaf:
        """Made here and now."""
        return self.issuer.leaf(*domain.patterns)


@dataclass(frozen=True)
class NoSigner:
    """Whoever ends TLS in front of us gets certificates by itself."""

    async def sign(self, domain: VmDomain) -> Leaf:
        """Refused."""
        raise Refused("certificates are made by what stands in front of the platform")


@dataclass(frozen=True)
class Certifier:
    """Gives every proven domain a certificate. Register `heard` with the database, and let it `run`."""

    app: App
    exact: Signer
    """For domains without a wildcard."""
    wildcard: Signer
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def heard(self, events: Sequence[Event]) -> None:
        """A domain was proven: have it certified. A local signer is done when this returns, others take their time."""
        for event in events:
            if event.kind == "domain.verified":
                await self._certify(event.subject, only_quick=True)

    async def run(self) -> None:
        """Make what is missing and renew what is due, until cancelled."""
        await self.settle()
        while True:
            self._woken.clear()
            try:
                while await self.renew() >= AT_A_TIME:
                    pass
            except Exception:  # the outermost frame of a chore: one failure must not end the renewals
                self.app.telemetry.log.exception("certificates were not looked at")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), ROUND_SECONDS)

    async def settle(self) -> int:
        """Let go of certificates that visitors would not believe any more, because the operator changed who signs:
        local ones where an ACME server or a front has that part now, and those of a root that is gone. How many."""
        gone = [d.id for d, kept in await self.app.db.read(_kept) if self._is_outdated(d, kept.chain)]
        for domain in gone:
            await self.app.db.write(lambda tx, domain=domain: _drop(tx, domain))  # type: ignore[misc]
            await self._certify(domain, only_quick=True)
        return len(gone)

    def _is_outdated(self, domain: VmDomain, chain: bytes) -> bool:
        if not chain or not is_local(chain):
            return False
        signer = self._signer(domain)
        return not isinstance(signer, LocalSigner) or not signer.issuer.stands_with(chain)

    def _signer(self, domain: VmDomain) -> Signer:
        return self.wildcard if domain.wildcard else self.exact

    async def renew(self) -> int:
        """Renew what is due, and make what is missing; how many were tried."""
        signers = {Covers.EXACT: self.exact, Covers.BELOW: self.wildcard, Covers.BOTH: self.wildcard}
        kinds = [covers.value for covers, signer in signers.items() if not isinstance(signer, NoSigner)]
        due = await self.app.db.read(lambda tx: _due(tx, kinds))
        for domain in due:
            await self._certify(domain)
        return len(due)

    async def _certify(self, which: str, only_quick: bool = False) -> None:
        domain = await self.app.db.read(lambda tx: store.by_id(tx, which))
        if domain is None or not domain.verified:
            return
        signer = self._signer(domain)
        if isinstance(signer, NoSigner):
            return
        if only_quick and not isinstance(signer, LocalSigner):
            self._woken.set()
            return
        try:
            leaf = await signer.sign(domain)
        except Refused as refused:
            why = printable(str(refused), MAX_WHY)
            await self.app.db.write(lambda tx: _keep_refusal(tx, domain, why))
        else:
            await self.app.db.write(lambda tx: _keep(tx, domain, leaf))


def of(tx: Tx, domain: str) -> Kept | None:
    """A domain's certificate; None before the first attempt."""
    table = domain_certificates
    row = tx.conn.execute(sa.select(table).where(table.c.domain == domain)).first()
    return None if row is None else Kept(**row._mapping)


def _kept(tx: Tx) -> list[tuple[VmDomain, Kept]]:
    """Every domain that is served with its certificate."""
    return [(domain, kept) for domain in store.served(tx) if (kept := of(tx, domain.id)) is not None]


def _drop(tx: Tx, domain: str) -> None:
    tx.conn.execute(domain_certificates.delete().where(domain_certificates.c.domain == domain))
    tx.emit(Event("domain.uncertified", SYSTEM, domain, {"why": "who signs has changed"}))


def _due(tx: Tx, kinds: Sequence[str]) -> list[str]:
    table, domains = domain_certificates, store.domains
    has = sa.select(table.c.domain).where(table.c.renew_at > tx.now)
    wanted = (domains.c.verified_at > 0) & domains.c.covers.in_(kinds) & domains.c.id.not_in(has)
    return [row[0] for row in tx.conn.execute(sa.select(domains.c.id).where(wanted).limit(AT_A_TIME))]


def _keep(tx: Tx, domain: VmDomain, leaf: Leaf) -> None:
    if store.by_id(tx, domain.id) is None:  # it went while the certificate was made
        return
    tx.conn.execute(domain_certificates.delete().where(domain_certificates.c.domain == domain.id))
    renew_at = leaf.expires - (leaf.expires - tx.now) / 3
    tx.conn.execute(domain_certificates.insert(), vars(
        Kept(domain.id, leaf.chain, leaf.key, leaf.expires, renew_at, 0, "")))
    tx.emit(Event("domain.certified", SYSTEM, domain.id, {"domain": domain.shown, "expires": int(leaf.expires)}))


def _keep_refusal(tx: Tx, domain: VmDomain, why: str) -> None:
    """Note why there is no new one, and when to try again; the old one goes on being served until its end."""
    if store.by_id(tx, domain.id) is None:
        return
    old = of(tx, domain.id) or Kept(domain.id, b"", b"", 0.0, 0.0, 0, "")
    tx.conn.execute(domain_certificates.delete().where(domain_certificates.c.domain == domain.id))
    wait = min(LAST_WAIT, FIRST_WAIT * 2.0 ** min(old.failures, 10))
    changed = {"renew_at": tx.now + wait, "failures": old.failures + 1, "why": why}
    tx.conn.execute(domain_certificates.insert(), vars(old) | changed)
    tx.emit(Event("domain.uncertified", SYSTEM, domain.id, {"domain": domain.shown, "why": why}))
