"""Asks DNS what a domain's owner wrote there."""
from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdata
import dns.resolver

from ussycode.config import Config
from ussycode.domains.model import Seen, VmDomain
from ussycode.domains.policy import delegation_name, text_name

T = TypeVar("T")
SECONDS = 5.0
"""Time of one question, all servers and repetitions together."""
MAX_HOPS = 8
"""Names that lead on to others, followed for one question."""
MAX_RECORDS = 50
"""Records of one answer that are looked at."""


class Silence(Exception):
    """DNS gave no answer, which is not the answer that there is nothing."""


@dataclass(frozen=True)
class Lookups:
    """Questions to the servers that the settings name, or to those of this host."""

    resolver: dns.asyncresolver.Resolver

    @classmethod
    def of(cls, config: Config) -> Lookups:
        """As the settings say."""
        made = dns.asyncresolver.Resolver(configure=not config.dns_resolver)
        if config.dns_resolver:
            made.nameservers = [dns.nameserver.Do53Nameserver(*_server(one)) for one in config.dns_resolver]
        made.lifetime, made.timeout, made.search = SECONDS, SECONDS / 2, []
        return cls(made)

    async def about(self, domain: VmDomain, ours: str) -> Seen:
        """What DNS says about a domain. `ours` is the platform's domain, where a chain is followed no further."""
        if domain.wildcard:
            try:
                return Seen(delegated=await self._chain(delegation_name(domain), ours))
            except Silence:
                return Seen(failed=True)
        leads, texts = await asyncio.gather(self._leads(domain.name, ours), _or_none(self._texts(text_name(domain))))
        return replace(leads, texts=texts or frozenset(), failed=leads.failed or texts is None)

    async def _leads(self, name: str, ours: str) -> Seen:
        """Where `name` leads. Addresses are asked for unless a chain of names says that it leads to us."""
        chain = await _or_none(self._chain(name, ours))
        if chain and _within(chain[-1], ours):
            return Seen(chain)
        addresses = await _or_none(self.addresses(name))
        return Seen(chain or (), addresses or frozenset(), failed=chain is None or addresses is None)

    async def addresses(self, name: str) -> frozenset[str]:
        """A and AAAA of `name`. Raises Silence."""
        found = await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA"))
        return frozenset(str(ipaddress.ip_address(r.to_text())) for records in found for r in records)

    async def is_zone(self, name: str) -> bool:
        """Whether somebody answers for the zone `name`."""
        try:
            return bool(await self._ask(name, "SOA"))
        except Silence:
            return False

    async def _texts(self, name: str) -> frozenset[str]:
        return frozenset(
            b"".join(r.strings).decode("latin-1").strip() for r in await self._ask(name, "TXT")  # type: ignore[attr-defined]
        )

    async def _chain(self, name: str, ours: str) -> tuple[str, ...]:
        chain: list[str] = []
        for _ in range(MAX_HOPS):
            found = await self._ask(chain[-1] if chain else name, "CNAME")
            if not found:
                break
            chain.append(_plain(found[0].target))  # type: ignore[attr-defined]
            if _within(chain[-1], ours):
                break
        return tuple(chain)

    async def _ask(self, name: str, kind: str) -> Sequence[dns.rdata.Rdata]:
        try:
            answer = await self.resolver.resolve(f"{name}.", kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return ()
        except (dns.exception.DNSException, OSError) as why:
            raise Silence(name) from why
        return list(answer.rrset or ())[:MAX_RECORDS]


async def _or_none(asked: Awaitable[T]) -> T | None:
    try:
        return await asked
    except Silence:
        return None


def _within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


def _server(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition("#")
    return (address, int(port)) if address else (text, 53)


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
