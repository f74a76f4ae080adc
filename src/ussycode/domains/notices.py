"""Mails to the owner of a domain when DNS no longer leads it here; nobody looks at `domain ls` every day."""
from __future__ import annotations

from ussycode.base.clock import rfc3339
from ussycode.base.db import Tx
from ussycode.domains import policy
from ussycode.domains.model import VmDomain
from ussycode.identity import store as identity
from ussycode.mail import store as mail


def failing(tx: Tx, domain: VmDomain, why: str) -> None:
    """It is served for a while yet, and nobody is signed in there; what is wrong, and until when."""
    end = rfc3339(tx.now + policy.PATIENCE)
    _post(tx, domain, f"{domain.shown} no longer leads to your VM", (
        f"DNS no longer proves that {domain.shown} is yours: {why}.",
        f"It is served until {end}, but nobody can sign in there. `domain ls -a` shows the record that is missing.",
    ))


def lost(tx: Tx, domain: VmDomain) -> None:
    """It is not served any more."""
    _post(tx, domain, f"{domain.shown} is not served any more", (
        f"DNS no longer leads {domain.shown} to your VM, so it is not served any more.",
        "Once its DNS is right again, `domain add VM DOMAIN` brings it back.",
    ))


def _post(tx: Tx, domain: VmDomain, subject: str, parts: tuple[str, ...]) -> None:
    owner = identity.user_by(tx, "id", domain.owner)
    if owner is not None and owner.email:  # addresses are verified or empty
        mail.post(tx, owner.email, subject, "\n\n".join(parts) + "\n")
