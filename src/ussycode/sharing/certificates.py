"""Which names the TLS terminator in front may get a public certificate for."""
from __future__ import annotations

import re

from prometheus_client import Counter

from ussycode.base.names import VM_NAME
from ussycode.domains import ops as domains
from ussycode.ports import App
from ussycode.sharing import ops
from ussycode.tokens.rate import Buckets

PORT_NAMES_AT_ONCE, PORT_NAMES_PER_HOUR = 10, 2
"""New names `PORT--NAME` of one VM, and new names under one wildcard: an authority counts certificates per domain
and week."""
_PORTED = re.compile(r"([3-9][0-9]{3})--(.*)", re.DOTALL)


class CertificateRule:
    """Says yes to names that exist. A public authority publishes every certificate, so this gives nothing away;
    saying yes to any well-formed name would let anybody use up what the authority allows the domain."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._port_names = Buckets(app.clock, PORT_NAMES_PER_HOUR / 3600, PORT_NAMES_AT_ONCE)
        self._asked = Counter(
            "ussycode_certificate_questions", "names asked for by the front", ["answer"],
            registry=app.telemetry.registry,
        )

    async def allows(self, name: str) -> bool:
        """Whether `name`, lower case and without port, may have a certificate."""
        answer = await self._answer(name)
        self._asked.labels(answer).inc()
        return answer == "yes"

    async def _answer(self, name: str) -> str:
        domain = self._app.config.domain
        if name == domain:
            return "yes"
        label, dot, rest = name.partition(".")
        ported = _PORTED.fullmatch(label)
        label = ported[2] if ported is not None else label
        if name != domain and not name.endswith(f".{domain}"):
            return await self._elsewhere(name)
        if not dot or rest != domain or VM_NAME.fullmatch(label) is None:
            return "no"
        vm = await ops.facts_of(self._app, label)
        if vm is None:
            return "no"
        return "later" if ported is not None and self._port_names.take(vm.vm) else "yes"

    async def _elsewhere(self, name: str) -> str:
        """A domain of its owner: once DNS has proven it. Names under a wildcard are counted like ports."""
        found = await domains.certifiable(self._app, name)
        if found is None:
            return "no"
        return "later" if name != found.name and self._port_names.take(found.id) else "yes"
