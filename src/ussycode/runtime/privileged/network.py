"""Root's side of the guests' network: rules loaded whole, guests let in and out, and what others broke mended."""
from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ussycode.runtime import leftovers
from ussycode.runtime.instance import CONTAINER_UID_FIRST, Instance
from ussycode.runtime.net import forwarding, rules, surroundings, taps, veths, wall
from ussycode.runtime.net.policy import Policy, Surroundings
from ussycode.runtime.privileged.processes import Record

_LINKS = Path("/sys/class/net")
_ALIEN = re.compile(r"^table (?:inet|netdev) (\S+) \{$.*?^\}$", re.M | re.S)


@dataclass
class Network:
    """The network of one instance. `living` tells which VMs run now; what is loaded follows from it alone."""

    instance: Instance
    policy: Policy
    living: Callable[[], Mapping[str, Record]]
    around: Surroundings = field(default_factory=Surroundings)
    _loaded: dict[str, str] = field(default_factory=dict)
    """What nft showed of our tables right after they were loaded, without counters and elements."""

    @property
    def ipv6(self) -> bool:
        """Whether guests have IPv6 now."""
        return self.around.ipv6

    def up(self) -> None:
        """Load table and walls in one transaction, switch forwarding on. Idempotent."""
        self.around = self._look()
        self._forward()
        self._load()

    def down(self) -> None:
        """Remove table, walls, taps and the forwarding that we switched on."""
        taps.load_rules(rules.remove(self.instance, taps.walls(self.instance)))
        for name in taps.leftover(self.instance):
            taps.remove(name)
        taps.release_pool(self.instance)
        forwarding.switch_back(self.instance.run, still_needed=bool(taps.tables()))

    def open_tap(self, number: int) -> int:
        """A descriptor of the VM's fresh tap."""
        return taps.open_tap(self.instance, number, ipv6=self.ipv6)

    def admit(self, number: int, confined: bool) -> None:
        """Let a guest speak whose tap is there."""
        taps.load_rules(rules.admit(self.instance, number, self.policy, ipv6=self.ipv6, confined=confined))

    def confine(self, number: int, confined: bool) -> None:
        """Change what a running guest may reach; what it had open elsewhere is cut off with the next packet."""
        taps.load_rules(rules.confine(self.instance, number, confined))

    def expel(self, number: int) -> None:
        """Take everything of an ended guest away. Idempotent."""
        if self.instance.table in taps.tables():
            taps.load_rules(rules.expel(self.instance, number))
        taps.cut_streams(self.instance.address(number))

    def check(self) -> tuple[str, ...]:
        """Mend what others changed on this host; sentences about what was not as it should be."""
        found = [*self._lost_taps(), *self._lost_routes(), *self._moved_host(), *self._closed_host()]
        found += self._changed_rules()
        return tuple(found)

    def leaks(self) -> tuple[str, ...]:
        """Sentences about what is left of VMs that do not run. Nothing of it is removed."""
        return leftovers.of_host(self.instance, self._numbers())

    def _look(self) -> Surroundings:
        seen = surroundings.look()
        return seen if self.policy.ipv6 else replace(seen, ipv6=False)

    def _forward(self) -> None:
        forwarding.switch_on(self.instance.run)
        taps.hold_pool(self.instance)
        if self.ipv6:
            forwarding.switch_on6(self.instance.run)
            taps.hold_pool6(self.instance)

    def _numbers(self) -> set[int]:
        return {record.number for record in self.living().values()}

    def _load(self) -> None:
        living = [r for r in self.living().values() if (_LINKS / self.instance.tap(r.number)).exists()]
        guests = tuple(record.number for record in living)
        confined = tuple(record.number for record in living if record.confined)
        taps.load_rules(rules.table(self.instance, guests, self.policy, self.around, confined))
        self._loaded = self._shown()

    def _lost_taps(self) -> Iterator[str]:
        for vm, record in self.living().items():
            name = self.instance.tap(record.number)
            if (_LINKS / name).exists():
                continue
            try:
                mended = self._revive(record)
            except (OSError, subprocess.CalledProcessError):
                mended = False
            self._loaded = {}
            yield f"{vm} had lost its interface {name}; " + ("it has it back" if mended else "restart the VM")

    def _revive(self, record: Record) -> bool:
        if record.uid >= CONTAINER_UID_FIRST:
            veths.connect(self.instance, record.number, record.pid, ipv6=self.ipv6)
            return True
        return taps.revive(record.pid, self.instance, record.number, ipv6=self.ipv6)

    def _lost_routes(self) -> Iterator[str]:
        routed = surroundings.guests(self.instance.tap_prefix)
        for vm, record in self.living().items():
            name, address = self.instance.tap(record.number), self.instance.address(record.number)
            if (name, address) in routed or not (_LINKS / name).exists():
                continue
            taps.configure(name, address, self.instance.address6(record.number) if self.ipv6 else "")
            yield f"{vm} had lost its route through {name}; it has it back"

    def _moved_host(self) -> Iterator[str]:
        now = self._look()
        if now != self.around:
            self.around, self._loaded = now, {}
            self._forward()
            yield "the networks of this host have changed; the rules follow"

    def _closed_host(self) -> Iterator[str]:
        if not forwarding.is_on(ipv6=self.ipv6):
            self._forward()
            yield "forwarding had been switched off; it is on again"

    def _changed_rules(self) -> Iterator[str]:
        if self._loaded and self._as_loaded(self._shown()) and self._elements() == self._expected():
            return
        known = bool(self._loaded)
        self._load()
        if known:
            yield "the network rules had been changed or removed; they are loaded again"

    def _as_loaded(self, shown: Mapping[str, str]) -> bool:
        """Every table is as it was; a guest's wall that was built since is taken as it is the first time."""
        for name in {self.instance.table, *(wall.name(self.instance, n) for n in self._numbers())}:
            if name not in shown or shown[name] != self._loaded.setdefault(name, shown[name]):
                return False
        return True

    def _shown(self) -> dict[str, str]:
        listed = "".join(taps.run("nft", "-s", "-t", "list", "ruleset", kind, text="") for kind in ("inet", "netdev"))
        ours = re.compile(rf"{self.instance.table}(_[0-9]+)?")
        return {found[1]: found[0] for found in _ALIEN.finditer(listed) if ours.fullmatch(found[1])}

    def _elements(self) -> set[str]:
        table = self.instance.table
        shown = [taps.run("nft", "list", "set", "inet", table, name, text="") for name in ("guests", "confined")]
        words = re.findall(r'"([^"]+)"(?: \. ([0-9.]+))?', "".join(shown))
        return {f"{tap} {address}".strip() for tap, address in words}

    def _expected(self) -> set[str]:
        alive = self.living().values()
        guests = {f"{self.instance.tap(r.number)} {self.instance.address(r.number)}" for r in alive}
        return guests | {self.instance.tap(r.number) for r in alive if r.confined}
