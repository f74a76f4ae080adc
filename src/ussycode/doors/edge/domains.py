"""Domains of owners: which VM each name stands for, and the certificate it is served with."""
from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping

from ussycode.doors.edge.contexts import context_of
from ussycode.wire.edge import EdgeDomain, EdgeVm


class Domains:
    """The feed's domains in look-up order. Only those that DNS has proven are ever told to an edge."""

    def __init__(self, vms: Callable[[], Mapping[str, EdgeVm]]) -> None:
        """`vms` gives the VMs that are here, by id: a domain of any other stands for nothing."""
        self._vms = vms
        self._known: dict[str, EdgeDomain] = {}
        self._by_pattern: dict[str, EdgeDomain] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def reset(self, domains: Iterable[EdgeDomain]) -> None:
        """Forget everything and take `domains`."""
        self._known.clear()
        self._by_pattern.clear()
        self._contexts.clear()
        self.apply(domains, ())

    def apply(self, put: Iterable[EdgeDomain], dropped: Iterable[str]) -> None:
        """Take one change: what it drops goes first."""
        put = list(put)
        for gone in (*dropped, *(domain.domain for domain in put)):
            self._forget(gone)
        for domain in put:
            self._known[domain.domain] = domain
            self._by_pattern |= dict.fromkeys(domain.patterns, domain)

    def vm_name(self, host: str) -> str:
        """Name of the VM at `host` (lower case, no port); empty for nothing. The exact name goes before a wildcard."""
        found = self._find(host)
        vm = self._vms().get(found.vm) if found is not None else None
        return vm.name if vm is not None else ""

    def context(self, host: str) -> ssl.SSLContext | None:
        """What a handshake for `host` goes on with; None for nothing, and while there is no certificate yet."""
        found = self._find(host)
        if found is None or not found.chain or found.vm not in self._vms():
            return None
        made = self._contexts.get(found.domain)
        if made is None:
            made = self._contexts[found.domain] = context_of(found.chain, found.key)
        return made

    def _find(self, host: str) -> EdgeDomain | None:
        return self._by_pattern.get(host) or self._by_pattern.get(f"*.{host.partition('.')[2]}")

    def _forget(self, which: str) -> None:
        self._contexts.pop(which, None)
        gone = self._known.pop(which, None)
        for pattern in gone.patterns if gone is not None else ():
            if self._by_pattern.get(pattern) is gone:
                del self._by_pattern[pattern]
