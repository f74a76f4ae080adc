"""What domain commands answer."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.config import Config
from ussycode.domains import policy
from ussycode.domains.certificates import Kept
from ussycode.domains.model import VmDomain
from ussycode.domains.ops import Listed


class AddedDocument(TypedDict):
    """`domain add`, when the domain is served from now on."""

    vm_name: str
    domain: str
    wildcard: bool
    wildcard_base: NotRequired[str]
    pattern: NotRequired[bool]


class AstrayDocument(TypedDict):
    """`domain add`, while DNS does not lead here. The claim stands; the TXT record is another way to prove it."""

    error: str
    vm_name: str
    domain: str
    expected: str
    txt_name: str
    txt_value: str
    expires_at: str


class UndelegatedDocument(TypedDict):
    """`domain add --wildcard`, while the name for certificates does not lead to ours. The claim stands."""

    error: str
    vm_name: str
    domain: str
    wildcard_base: str
    delegation_name: str
    delegation_target: str
    expires_at: str


class RemovedDocument(TypedDict):
    """`domain rm`."""

    vm_name: str
    domain: str
    removed: bool


class CertificateDocument(TypedDict):
    """The certificate that the platform keeps for a domain; `why` says what the last attempt failed at."""

    expires_at: NotRequired[str]
    renews_at: str
    why: str


class DomainDocument(TypedDict):
    """One domain of `domain ls`. `status` is `verified`, `failing` (served, DNS no longer leads here) or `pending`."""

    vm_name: str
    domain: str
    wildcard: bool
    status: str
    proof: str
    why: str
    created_at: str
    verified_at: NotRequired[str]
    expires_at: NotRequired[str]
    expected: NotRequired[str]
    txt_name: NotRequired[str]
    txt_value: NotRequired[str]
    delegation_name: NotRequired[str]
    delegation_target: NotRequired[str]
    certificate: NotRequired[CertificateDocument]


class DomainsDocument(TypedDict):
    """`domain ls`."""

    domains: list[DomainDocument]


@dataclass(frozen=True)
class AddView:
    """A claim after it was held against DNS."""

    vm_name: str
    domain: VmDomain
    config: Config

    def text(self, style: Style) -> str:
        """The URL, or the records that are missing."""
        domain = self.domain
        if domain.verified:
            return f"{domain.shown} is served by {self.vm_name}\n  {self.config.host_url(_host(domain))}"
        lines = [f"{style.paint('not yet:', 'yellow')} {printable(domain.why)}. In the DNS of {domain.name}, make"]
        if domain.wildcard:
            target = policy.delegation_target(domain, self.config.delegation_zone)
            lines += [f"  {policy.delegation_name(domain)}  CNAME  {target}",
                      f"  *.{domain.name}  CNAME  {self.config.vm_host(self.vm_name)}"]
        else:
            lines += [f"  {domain.name}  CNAME  {self.config.vm_host(self.vm_name)}",
                      f"or {policy.text_name(domain)}  TXT  {policy.text_value(domain)}"]
        lines.append(f"It is looked at again by itself until {_end(domain)}, and when you repeat this command.")
        return "\n".join(lines)

    def document(self) -> AddedDocument | AstrayDocument | UndelegatedDocument:
        """The document of `domain add`."""
        domain, config = self.domain, self.config
        if domain.verified:
            return _added(self.vm_name, domain)
        if domain.wildcard:
            return {
                "error": f"the delegation for certificates is missing: {domain.why}", "vm_name": self.vm_name,
                "domain": domain.shown, "wildcard_base": domain.name,
                "delegation_name": policy.delegation_name(domain),
                "delegation_target": policy.delegation_target(domain, config.delegation_zone),
                "expires_at": _end(domain),
            }
        return {
            "error": f"DNS does not point here: {domain.why}", "vm_name": self.vm_name, "domain": domain.shown,
            "expected": config.vm_host(self.vm_name), "txt_name": policy.text_name(domain),
            "txt_value": policy.text_value(domain), "expires_at": _end(domain),
        }


def _added(vm_name: str, domain: VmDomain) -> AddedDocument:
    made: AddedDocument = {"vm_name": vm_name, "domain": domain.shown, "wildcard": domain.wildcard}
    if domain.wildcard:
        made["wildcard_base"] = domain.name
    if domain.shown.startswith("*."):
        made["pattern"] = True
    return made


def _host(domain: VmDomain) -> str:
    return f"any.{domain.name}" if domain.shown.startswith("*.") else domain.name


def _end(domain: VmDomain) -> str:
    return rfc3339(domain.created_at + policy.CLAIM_SECONDS)


@dataclass(frozen=True)
class RemoveView:
    """A domain that was let go."""

    vm_name: str
    domain: str

    def text(self, style: Style) -> str:
        """One line."""
        return f"{self.domain} is not served any more; {self.vm_name} is where it was"

    def document(self) -> RemovedDocument:
        """The document of `domain rm`."""
        return {"vm_name": self.vm_name, "domain": self.domain, "removed": True}


@dataclass(frozen=True)
class DomainsView:
    """Domains with their VMs."""

    rows: tuple[Listed, ...]
    config: Config

    def text(self, style: Style) -> str:
        """A table."""
        if not self.rows:
            return "no domains; domain add VM DOMAIN brings one"
        cells = [[r.domain.shown, r.vm_name or "(in the trash)", _status(r.domain), _trouble(r)] for r in self.rows]
        return table(["DOMAIN", "VM", "STATUS", ""], cells, style)

    def document(self) -> DomainsDocument:
        """The document of `domain ls`."""
        return {"domains": [_document(r, self.config) for r in self.rows]}


def _trouble(row: Listed) -> str:
    return row.domain.why or (row.certificate.why if row.certificate is not None else "")


def _status(domain: VmDomain) -> str:
    if not domain.verified:
        return "pending"
    return "failing" if domain.failing_since else "verified"


def _document(row: Listed, config: Config) -> DomainDocument:
    domain = row.domain
    made: DomainDocument = {
        "vm_name": row.vm_name, "domain": domain.shown, "wildcard": domain.wildcard, "status": _status(domain),
        "proof": domain.proof.value, "why": domain.why, "created_at": rfc3339(domain.created_at),
    }
    if domain.verified:
        made["verified_at"] = rfc3339(domain.verified_at)
    else:
        made["expires_at"] = _end(domain)
    if domain.wildcard:
        made["delegation_name"] = policy.delegation_name(domain)
        made["delegation_target"] = policy.delegation_target(domain, config.delegation_zone)
    else:
        made["expected"] = config.vm_host(row.vm_name) if row.vm_name else ""
        made["txt_name"], made["txt_value"] = policy.text_name(domain), policy.text_value(domain)
    if row.certificate is not None:
        made["certificate"] = _certificate(row.certificate)
    return made


def _certificate(kept: Kept) -> CertificateDocument:
    made: CertificateDocument = {"renews_at": rfc3339(kept.renew_at), "why": kept.why}
    if kept.expires:
        made["expires_at"] = rfc3339(kept.expires)
    return made
