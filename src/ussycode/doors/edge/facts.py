"""What an edge knows: VMs, users and sessions from the feed, and the judgement made from them."""
from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ussycode.access.actions import Action
from ussycode.access.decide import Decision, Reply, decide
from ussycode.access.facts import NOBODY, Caller, Facts, Grant, Level, Role, Via, VmFacts
from ussycode.doors.edge.bearer import MARK, Tokens
from ussycode.doors.edge.hosts import HostKind, Target
from ussycode.wire.edge import Change, EdgeSession, EdgeUser, EdgeVm, Snapshot

RUNNING = "running"


class Outcome(enum.Enum):
    """What happens to a request for this host by this visitor."""

    PROXY = "proxy"
    PLATFORM = "platform"
    NOWHERE = "nowhere"
    """A host that no VM can have, or one that this visitor may not know of."""
    LOGIN = "login"
    STOPPED = "stopped"
    CLOSED = "closed"
    """Private, and control has been unreachable for longer than the grace."""
    STARTING = "starting"
    """No snapshot has come yet."""


@dataclass(frozen=True)
class Judgement:
    """The outcome with everything that follows from it. `expires`: unix time at which session or share ends."""

    outcome: Outcome
    reason: str
    caller: Caller = NOBODY
    vm: EdgeVm | None = None
    port: int = 0
    expires: float = math.inf
    ctx: str = ""
    """Context of the token that the visitor showed, as its signer wrote it."""

    @property
    def allowed(self) -> bool:
        """The visitor may open the VM, whether or not it runs."""
        return self.outcome in (Outcome.PROXY, Outcome.STOPPED)

    @property
    def owner(self) -> bool:
        """The visitor owns the VM, so may be told about its state."""
        return self.vm is not None and self.caller.known and self.caller.user == self.vm.owner


class Known:
    """The feed's content in look-up order. Applying a change is synchronous and complete."""

    def __init__(self, tokens: Tokens) -> None:
        self.ready = False
        self.tokens = tokens
        self.vms: dict[str, EdgeVm] = {}
        self._by_name: dict[str, tuple[EdgeVm, VmFacts]] = {}
        self._users: dict[str, Caller] = {}
        self._sessions: dict[str, EdgeSession] = {}

    def reset(self, snapshot: Snapshot) -> None:
        """Forget everything and take `snapshot`. Raises ValueError on a role or level that does not exist."""
        users = {user.user: _caller(user) for user in snapshot.users}
        by_name = {vm.name: (vm, _vm_facts(vm)) for vm in snapshot.vms}
        self.vms = {vm.vm: vm for vm in snapshot.vms}
        self._by_name = by_name
        self._users = users
        self._sessions = {session.digest: session for session in snapshot.sessions}
        self.ready = True

    def apply(self, change: Change) -> None:
        """Take one change: what it drops goes first. Raises ValueError on a role or level that does not exist."""
        users = {user.user: _caller(user) for user in change.put_users}
        by_name = {vm.name: (vm, _vm_facts(vm)) for vm in change.put_vms}
        self.tokens.forget(frozenset(change.forget_tokens))
        self._forget_vms([*change.drop_vms, *(vm.vm for vm in change.put_vms)])
        for user in change.drop_users:
            self._users.pop(user, None)
        for digest in change.drop_sessions:
            self._sessions.pop(digest, None)
        self.vms |= {vm.vm: vm for vm in change.put_vms}
        self._by_name |= by_name
        self._users |= users
        self._sessions |= {session.digest: session for session in change.put_sessions}

    def judge(self, target: Target, credential: bytes | None, now: float, closed: bool) -> Judgement:
        """Who may what, here. `closed` says that the grace is over.

        `credential` is the session cookie's value, or a token behind MARK that control has checked.
        """
        if target.kind is HostKind.PLATFORM:
            return Judgement(Outcome.PLATFORM, "platform")
        if not self.ready:  # nor are the domains known that are served
            return Judgement(Outcome.STARTING, "no_snapshot")
        if target.kind is HostKind.NOWHERE:
            return Judgement(Outcome.NOWHERE, "no_host")
        caller, expires, ctx = (NOBODY, math.inf, "") if closed else self._who(target, credential, now)
        vm, facts = self._by_name.get(target.name, (None, None))
        port = target.port or (vm.primary_port if vm is not None else 0)
        decision = decide(Action.VM_OPEN, Facts(caller, facts, port, now=now))
        if closed and not decision.allowed:
            return Judgement(Outcome.CLOSED, "grace_over")
        expires = min(expires, decision.until)
        return Judgement(_outcome(decision, vm), decision.reason.value, caller, vm, port, expires, ctx)

    def _who(self, target: Target, credential: bytes | None, now: float) -> tuple[Caller, float, str]:
        if credential is None or credential[:1] != MARK:
            return *self._caller(target.host, credential, now), ""
        token = self.tokens.get(target.name, credential[1:])
        if token is None or token.refused or token.not_before > now:
            return NOBODY, math.inf, ""
        caller = self._users.get(token.user, NOBODY)
        return replace(caller, via=Via.TOKEN, tag=token.tag), token.expires or math.inf, token.ctx

    def _caller(self, host: str, cookie: bytes | None, now: float) -> tuple[Caller, float]:
        if cookie is None:
            return NOBODY, math.inf
        session = self._sessions.get(hashlib.sha256(cookie).hexdigest())
        if session is None or session.host != host or session.expires <= now:
            return NOBODY, math.inf
        return self._users.get(session.user, NOBODY), session.expires

    def _forget_vms(self, vms: Iterable[str]) -> None:
        for gone in vms:
            vm = self.vms.pop(gone, None)
            if vm is not None and self._by_name.get(vm.name, (None,))[0] is vm:
                del self._by_name[vm.name]


def _outcome(decision: Decision, vm: EdgeVm | None) -> Outcome:
    if decision.reply is Reply.LOGIN:
        return Outcome.LOGIN
    if not decision.allowed or vm is None:
        return Outcome.NOWHERE
    return Outcome.PROXY if vm.phase == RUNNING and vm.address else Outcome.STOPPED


def _caller(user: EdgeUser) -> Caller:
    return Caller(user.user, user.handle, Role(user.role), Via.SESSION, email=user.email)


def _vm_facts(vm: EdgeVm) -> VmFacts:
    grants: dict[str, tuple[Grant, ...]] = {}
    for g in vm.grants:
        grants[g.user] = (*grants.get(g.user, ()), Grant(Level(g.level), g.port, g.link, g.expires))
    return VmFacts(vm.vm, vm.name, vm.owner, frozenset(vm.public_ports), vm.primary_port, grants,
                   frozenset(vm.tags))
