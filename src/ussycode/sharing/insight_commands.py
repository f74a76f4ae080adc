"""Commands that tell who can reach a VM, and who did."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from ussycode.access.actions import Action
from ussycode.access.decide import Decision
from ussycode.access.facts import Level, VmFacts
from ussycode.base.clock import rfc3339
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, flag, vm, word
from ussycode.config import Config
from ussycode.ports import Ctx
from ussycode.sharing import places, simulate, visitors, words
from ussycode.sharing.simulate import Received, Standing
from ussycode.sharing.visitors import MAX_ROWS, Visit
from ussycode.vms.commands import target


class ReachDocument(TypedDict):
    """What is decided about one port. `until` when the decision ends by itself."""

    port: int
    url: str
    allowed: bool
    reason: str
    until: NotRequired[str]


class StandingDocument(TypedDict):
    """One person: `status` is owner, active, pending, stranger or anyone; `shell` says whether SSH lets them in."""

    who: str
    status: str
    shell: bool
    shell_reason: str
    ports: list[ReachDocument]


class WhoDocument(TypedDict):
    """`share who`."""

    vm_name: str
    people: list[StandingDocument]


@dataclass(frozen=True)
class WhoView:
    """Who reaches what, by what."""

    config: Config
    vm: VmFacts
    people: tuple[Standing, ...]
    alone: bool

    def text(self, style: Style) -> str:
        """A column for the shell and for each port; the cells are reasons."""
        ports = [port for port, _ in self.people[0].ports]
        head = ["WHO", "STATUS", "SHELL", *map(str, ports)]
        rows = [[p.who, p.status, self._cell(p.shell), *(self._cell(d) for _, d in p.ports)] for p in self.people]
        return table(head, rows, style)

    def _cell(self, decision: Decision) -> str:
        if decision.allowed:
            return decision.reason
        return f"no: {decision.reason}" if self.alone else "-"

    def document(self) -> WhoDocument:
        """The document of `share who`."""
        return {"vm_name": self.vm.name, "people": [
            {"who": p.who, "status": p.status, "shell": p.shell.allowed, "shell_reason": p.shell.reason.value,
             "ports": [self._port(port, decision) for port, decision in p.ports]} for p in self.people
        ]}

    def _port(self, port: int, decision: Decision) -> ReachDocument:
        url = places.url(self.config, self.vm.name, port, self.vm.primary_port)
        made: ReachDocument = {"port": port, "url": url, "allowed": decision.allowed, "reason": decision.reason.value}
        if decision.until != float("inf"):
            made["until"] = rfc3339(decision.until)
        return made


@dataclass(frozen=True)
class Who:
    """Arguments of `share who`."""

    vm: str = word(target, help="the VM", complete="vm")
    person: str = word(words.person, help="an address or a handle; everybody it concerns when omitted", default="")


@command("share who", needs=Action.VM_SHARE, on=vm("vm"), reads_only=True,
         examples=("share who demo", "share who demo friend@example.org"))
async def who(ctx: Ctx, a: Who) -> WhoView:
    """Show who can reach which port and the shell, and by what; for one person also why not.

    The answers are those of the decision that the doors ask. Somebody invited is judged as if they had signed in.
    """
    facts, people = await simulate.who(ctx.app, ctx.permit, a.person)
    return WhoView(ctx.app.config, facts, tuple(people), bool(a.person))


class ReceivedDocument(TypedDict):
    """Something that somebody else shares with the caller. `ssh_dest` where it is a shell."""

    vm_name: str
    owner: str
    share_level: str
    port: int
    url: str
    ssh_dest: NotRequired[str]
    expires_at: NotRequired[str]


class MineDocument(TypedDict):
    """`share mine`."""

    shares: list[ReceivedDocument]


@dataclass(frozen=True)
class MineView:
    """What others share with the caller."""

    config: Config
    found: tuple[Received, ...]

    def text(self, style: Style) -> str:
        """A table."""
        if not self.found:
            return "nobody shares anything with you so far"
        rows = [[f.vm.name, f.owner, "shell" if f.share.level is Level.SHELL else "web", self._url(f),
                 rfc3339(f.share.expires)[:16] if f.share.expires else "-"] for f in self.found]
        return table(["VM", "OWNER", "WHAT", "URL", "ENDS"], rows, style)

    def _url(self, found: Received) -> str:
        return places.url(self.config, found.vm.name, found.port, found.vm.primary_port)

    def document(self) -> MineDocument:
        """The document of `share mine`."""
        return {"shares": [self._one(f) for f in self.found]}

    def _one(self, f: Received) -> ReceivedDocument:
        made: ReceivedDocument = {
            "vm_name": f.vm.name, "owner": f.owner, "share_level": f.share.level_word, "port": f.port,
            "url": self._url(f),
        }
        if f.share.level is Level.SHELL:
            made["ssh_dest"] = f"{f.vm.name}@{self.config.domain}"
        if f.share.expires:
            made["expires_at"] = rfc3339(f.share.expires)
        return made


@dataclass(frozen=True)
class Mine:
    """No arguments."""


@command("share mine", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, examples=("share mine",))
async def mine(ctx: Ctx, a: Mine) -> MineView:
    """List what others share with you, and where it is."""
    return MineView(ctx.app.config, tuple(await simulate.received(ctx.app, ctx.permit)))


class VisitDocument(TypedDict):
    """Requests of one visitor within an hour that were decided alike. `who` is empty for nobody who signed in."""

    first_at: str
    last_at: str
    who: str
    handle: NotRequired[str]
    address: str
    port: int
    allowed: bool
    reason: str
    requests: int


class LogDocument(TypedDict):
    """`share log`, newest first."""

    vm_name: str
    visitors: list[VisitDocument]


@dataclass(frozen=True)
class LogView:
    """Who came."""

    vm_name: str
    visits: tuple[Visit, ...]

    def text(self, style: Style) -> str:
        """A table, newest first."""
        if not self.visits:
            return f"nobody came to {self.vm_name} over HTTPS so far"
        rows = [[rfc3339(v.last_at), v.who or "nobody", v.address, str(v.port), "allowed" if v.allowed else "refused",
                 v.reason, str(v.requests)] for v in self.visits]
        return table(["LAST", "WHO", "FROM", "PORT", "DECISION", "BECAUSE", "REQUESTS"], rows, style)

    def document(self) -> LogDocument:
        """The document of `share log`."""
        return {"vm_name": self.vm_name, "visitors": [_visit(v) for v in self.visits]}


def _visit(v: Visit) -> VisitDocument:
    made: VisitDocument = {
        "first_at": rfc3339(v.first_at), "last_at": rfc3339(v.last_at), "who": v.who, "address": v.address,
        "port": v.port, "allowed": v.allowed, "reason": v.reason, "requests": v.requests,
    }
    if v.handle:
        made["handle"] = v.handle
    return made


def rows(text: str) -> int:
    """How many rows to show."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:5]) <= MAX_ROWS:
        raise ValueError(f"a number from 1 to {MAX_ROWS}")
    return int(text)


@dataclass(frozen=True)
class Log:
    """Arguments of `share log`."""

    vm: str = word(target, help="the VM", complete="vm")
    limit: int = flag(rows, help="rows to show, newest first", default=50)


@command("share log", needs=Action.VM_SHARE, on=vm("vm"), reads_only=True,
         examples=("share log demo", "share log demo --limit 200"))
async def log(ctx: Ctx, a: Log) -> LogView:
    """Show who came to a VM over HTTPS, when, from where, and what was decided; some seconds late.

    One row is what one visitor asked for within an hour. Rows are kept for 30 days, at most 1000 for each VM.
    """
    return LogView(a.vm, tuple(await visitors.newest(ctx.app, ctx.permit, a.limit)))


ALL = (who, mine, log)
