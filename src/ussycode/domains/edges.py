"""What edges are told of domains: those that DNS has proven, with their certificates."""
from __future__ import annotations

from ussycode.base.db import Tx
from ussycode.domains import certificates, store
from ussycode.domains.model import VmDomain
from ussycode.wire.edge import EdgeDomain


def everything(tx: Tx) -> list[EdgeDomain]:
    """Every domain that is served."""
    return [_domain(tx, d) for d in store.served(tx)]


def one(tx: Tx, domain: str) -> EdgeDomain | None:
    """The domain with this id; None when it is gone, or a claim that nobody has proven."""
    found = store.by_id(tx, domain)
    return None if found is None or not found.verified else _domain(tx, found)


def _domain(tx: Tx, domain: VmDomain) -> EdgeDomain:
    kept = certificates.of(tx, domain.id)
    pem = (kept.chain, kept.key) if kept is not None else (b"", b"")
    return EdgeDomain(domain.id, domain.vm, domain.patterns, *pem)
