"""What a host name means: the platform, a VM's port, or nothing."""
from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ussycode.base.names import ALTERNATE_PORTS, VM_NAME

FIRST_PORT, LAST_PORT = ALTERNATE_PORTS[0], ALTERNATE_PORTS[-1]
"""Ports that a `PORT--NAME` host may ask for."""
_PORTED = re.compile(r"([0-9]{4})--(.*)", re.DOTALL)


class HostKind(enum.Enum):
    """`NOWHERE` is answered with 404, never with the main site."""

    PLATFORM = "platform"
    VM = "vm"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class Target:
    """The meaning of one host name. `port` is None for the VM's primary port. The VM need not exist."""

    kind: HostKind
    host: str
    name: str = ""
    port: int | None = None


@dataclass(frozen=True)
class Hosts:
    """The rule for one domain. Below it, whether a VM exists plays no part.

    `elsewhere` gives the name of the VM behind a host outside of it, empty for none.
    """

    domain: str
    elsewhere: Callable[[str], str] = lambda host: ""

    def target(self, host: str, listener: int = 0) -> Target:
        """Meaning of `host`: lower case, without port. `listener` is the alternate port that was connected to.

        An alternate port means itself, of a VM's plain host: the base domain and `PORT--NAME` are not there.
        """
        found = self.own(host)
        # Control claims no name below our domain for anybody; nor would one be believed here.
        foreign = found.kind is HostKind.NOWHERE and not host.endswith(f".{self.domain}")
        if foreign and (name := self.elsewhere(host)):
            found = Target(HostKind.VM, host, name)
        if not listener:
            return found
        if found.kind is not HostKind.VM or found.port is not None:
            return Target(HostKind.NOWHERE, host)
        return replace(found, port=listener)

    def own(self, host: str) -> Target:
        """Meaning of `host` by its shape alone: names outside our domain are nowhere."""
        if host == self.domain:
            return Target(HostKind.PLATFORM, host)
        label, dot, rest = host.partition(".")
        if not dot or rest != self.domain:
            return Target(HostKind.NOWHERE, host)
        return _of_label(label, host)


def _of_label(label: str, host: str) -> Target:
    port: int | None = None
    ported = _PORTED.fullmatch(label)
    if ported is not None:
        port, label = int(ported[1]), ported[2]
    shaped = VM_NAME.fullmatch(label) is not None and "--" not in label
    if not shaped or (port is not None and not FIRST_PORT <= port <= LAST_PORT):
        return Target(HostKind.NOWHERE, host)
    return Target(HostKind.VM, host, label, port)
