"""The rules of domains: what proves a claim, who may claim what, how often DNS is asked. Pure."""
from __future__ import annotations

from collections.abc import Sequence

from ussycode.base.errors import ErrorCode, Kind
from ussycode.domains.model import Covers, Finding, Place, Proof, Seen, VmDomain
from ussycode.domains.names import Domain

MAX_OF_ACCOUNT = 50
"""Domains of one account, those that are not proven yet included."""
CLAIM_SECONDS = 7 * 86_400.0
"""Life of a claim that DNS does not prove; after that it is forgotten."""
FIRST_WAIT, LAST_WAIT = 60.0, 3600.0
"""Seconds between looks at a claim: doubling from the first to the last."""
LOOK_AGAIN = 6 * 3600.0
"""Seconds between looks at a domain that is served."""
LOOK_SOON = 900.0
"""The same while DNS no longer proves it."""
PATIENCE = 3 * 86_400.0
"""Seconds that a served domain may be without proof before it is no longer served. Silence of DNS does not count."""
TOO_MANY = ErrorCode("domain.too_many", Kind.CONFLICT, "an account has at most {limit} domains",
                     hint="domain ls -a shows yours; domain rm VM DOMAIN lets one go")
OURS = ErrorCode("domain.ours", Kind.CONFLICT, "{domain} belongs to the platform itself",
                 hint="use a domain of your own; every VM has its own address already: share show VM")


def covers(domain: Domain, wildcard: bool) -> Covers:
    """What `domain add` asks for."""
    if domain.pattern:
        return Covers.BELOW
    return Covers.BOTH if wildcard else Covers.EXACT


def require_foreign(platform: str, name: str, covered: Covers) -> None:
    """Raises OURS for the platform's domain, names below it, and a wildcard over it."""
    above = covered is not Covers.EXACT and platform.partition(".")[2] == name
    if name == platform or name.endswith(f".{platform}") or above:
        raise OURS(domain=name)


def require_room(count: int) -> None:
    """Raises TOO_MANY when an account that has `count` domains may not claim another."""
    if count >= MAX_OF_ACCOUNT:
        raise TOO_MANY(limit=MAX_OF_ACCOUNT)


def judge(domain: VmDomain, seen: Seen, place: Place, contested: bool) -> Finding:
    """What `seen` proves. `contested`: the name lies under another account's wildcard.

    The wildcard's own records lead every name below it here, so there only a proof that names the account counts.
    """
    if domain.wildcard:
        return _judge_wildcard(domain, seen, place)
    if domain.value in (t.removeprefix("ussycode=") for t in seen.texts):
        return Finding(Proof.TXT)
    ours = next((n for n in seen.chain if _within(n, place.domain)), "")
    if ours and ours in (place.host, domain.target):
        return Finding(Proof.CNAME, ours)
    if ours and ours != place.domain:
        return Finding(Proof.NONE, why=f"it leads to {ours}, which is not this VM")
    found = Proof.PLATFORM if ours else _by_address(seen, place)
    if found is not Proof.NONE and contested:
        return Finding(Proof.NONE, why="a wildcard of another account leads it here; point it at this VM by name")
    if found is not Proof.NONE:
        return Finding(found)
    return Finding(Proof.NONE, sure=not seen.failed, why=_astray(seen))


def _judge_wildcard(domain: VmDomain, seen: Seen, place: Place) -> Finding:
    wanted = delegation_target(domain, place.zone)
    if wanted in seen.delegated:
        return Finding(Proof.DELEGATION, wanted)
    if seen.delegated:
        return Finding(Proof.NONE, why=f"{delegation_name(domain)} leads to {seen.delegated[-1]}")
    return Finding(Proof.NONE, sure=not seen.failed, why=f"{delegation_name(domain)} leads nowhere")


def _by_address(seen: Seen, place: Place) -> Proof:
    return Proof.ADDRESS if seen.addresses and seen.addresses <= place.addresses else Proof.NONE


def _astray(seen: Seen) -> str:
    if seen.failed:
        return "its DNS did not answer"
    where = seen.chain[-1:] or tuple(sorted(seen.addresses))[:3]
    return f"it leads to {', '.join(where)}" if where else "it leads nowhere"


def _within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


def text_name(domain: VmDomain) -> str:
    """Name of the TXT record that proves the domain without leading it here."""
    return f"_ussycode.{domain.name}"


def text_value(domain: VmDomain) -> str:
    """What that record holds."""
    return f"ussycode={domain.value}"


def delegation_name(domain: VmDomain) -> str:
    """Name at which a certificate authority asks for a wildcard (RFC 8555, section 8.4)."""
    return f"_acme-challenge.{domain.name}"


def delegation_target(domain: VmDomain, zone: str) -> str:
    """Where that name must lead: a name of the account in the zone that we answer for."""
    return f"{domain.value}.{zone}"


def next_look(domain: VmDomain, now: float) -> float:
    """When DNS is asked again; unix seconds."""
    if not domain.verified:
        return now + min(LAST_WAIT, FIRST_WAIT * 2.0 ** min(domain.checks, 10))
    return now + (LOOK_SOON if domain.failing_since else LOOK_AGAIN)


def above(name: str) -> str:
    """The wildcard that stands for `name`, if somebody has it."""
    return f"*.{name.partition('.')[2]}"


def is_over(domain: VmDomain, now: float) -> bool:
    """A claim that nobody proved in time."""
    return not domain.verified and now - domain.created_at >= CLAIM_SECONDS


def is_lost(domain: VmDomain, now: float) -> bool:
    """A served domain that has been without proof for too long."""
    return domain.verified and domain.failing_since > 0 and now - domain.failing_since >= PATIENCE


def held_against(holders: Sequence[VmDomain], owner: str) -> bool:
    """Somebody else has one of the names."""
    return any(h.owner != owner for h in holders)
