"""Who a VM is: everything its agent is told at `configure`."""
from __future__ import annotations

from dataclasses import dataclass, replace

from ussycode.runtime.guest.protocol import Pairs

GATEWAY, GATEWAY6 = "169.254.1.1", "fe80::1"
"""The host side of every VM's tap."""
SEED_BYTES = 64
"""Random bytes given at each configure, so that no two clones share a random pool."""


@dataclass(frozen=True)
class Service:
    """What the tiny init runs. `user` is NAME or UID, with :GROUP perhaps; empty for root."""

    argv: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    env: tuple[tuple[str, str], ...] = ()
    """The image's own variables; the VM's win over them."""

    def commanded(self, command: tuple[str, ...]) -> Service:
        """The same with another command, when one is given."""
        return replace(self, argv=command) if command else self

    def under(self, env: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The image's variables with those of the VM laid over."""
        return tuple((dict(self.env) | dict(env)).items())


@dataclass(frozen=True)
class Identity:
    """A VM's identity. `env` names match [A-Za-z_][A-Za-z0-9_]*; the guest refuses others."""

    hostname: str
    address: str
    """IPv4 address, without prefix length; the guest uses /32."""
    secret: str
    """64 hex characters; authenticates streams of this boot."""
    machine_id: str
    """32 hex characters, used when the disk has none, or when `anew`."""
    login_user: str = "root"
    gateway: str = GATEWAY
    address6: str = ""
    """IPv6 address, without prefix length; empty when the host gives none."""
    gateway6: str = GATEWAY6
    mac: str = ""
    """Set when given; a clone of a template needs it, a cold boot has it from QEMU."""
    dns: tuple[str, ...] = (GATEWAY,)
    env: tuple[tuple[str, str], ...] = ()
    authorized_keys: tuple[str, ...] = ()
    host_keys: tuple[tuple[str, str], ...] = ()
    """File name under /etc/ssh (`ssh_host_ed25519_key`, `….pub`) and its content."""
    anew: bool = False
    """The disk became this machine's just now: the machine id and SSH host keys on it are another's and go. The host
    keys given are written only where there were some."""
    service: Service = Service()
    grow: bool = True
    """Grow the root file system to the size of its disk."""

    def pairs(self, now: float, seed: bytes) -> Pairs:
        """The fields of `configure`. `now` is Unix seconds, `seed` fresh random bytes; seed goes first."""
        sec, usec = divmod(round(now * 1_000_000), 1_000_000)
        given = [
            ("seed", seed.hex()), ("time", f"{sec}.{usec:06d}"), ("secret", self.secret),
            ("hostname", self.hostname), ("address", self.address), ("gateway", self.gateway),
            ("machine_id", self.machine_id), ("login_user", self.login_user), ("grow", "1" if self.grow else "0"),
        ]
        given += [("mac", self.mac)] if self.mac else []
        given += [("anew", "1")] if self.anew else []
        given += [("address6", self.address6), ("gateway6", self.gateway6)] if self.address6 else []
        given += [("dns", server) for server in self.dns]
        given += [("env", f"{name}={value}") for name, value in self.service.under(self.env)]
        given += [("authorized_key", key) for key in self.authorized_keys]
        given += [("service_user", self.service.user), ("service_cwd", self.service.cwd)] if self.service.argv else []
        given += [("arg", word) for word in self.service.argv]
        given += [("host_key", f"{name}\n{content}") for name, content in self.host_keys]
        return tuple(given)
