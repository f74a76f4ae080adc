"""The one function that decides. Pure; its whole truth table is `tests/golden/access.txt`."""
from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.access.facts import PRIMARY, Caller, Facts, Grant, Level, Role, VmFacts


class Reply(enum.StrEnum):
    """What the caller sees. `HIDE` looks exactly like a thing that does not exist."""

    ALLOW = "allow"
    LOGIN = "login"
    FORBID = "forbid"
    HIDE = "hide"


class Reason(enum.StrEnum):
    """Why, for the log and the counters; never shown where `HIDE` is."""

    ANYONE = "anyone"
    SIGNED_IN = "signed_in"
    OWNER = "owner"
    PUBLIC = "public"
    GRANTED = "granted"
    """The owner shared this port with them."""
    LINK = "link"
    """They came through a share link of this port."""
    GRANTED_SHELL = "granted_shell"
    NOT_SIGNED_IN = "not_signed_in"
    NO_VM = "no_vm"
    MAIL_OFF = "mail_off"
    """The VM takes no mail."""
    NOT_YOURS = "not_yours"
    NOT_SHARED = "not_shared"
    """Something of the VM is shared with them, but not this."""
    GRANT_ENDED = "grant_ended"
    ROLE = "role"
    KEY_TAG = "key_tag"
    """Their key reaches VMs with one tag only."""
    TOKEN_SCOPE = "token_scope"  # noqa: S105 - a word, not a secret


@dataclass(frozen=True)
class Decision:
    """The reply for the caller and the reason for the record."""

    reply: Reply
    reason: Reason
    until: float = math.inf
    """Unix seconds at which it must be made again, whatever else stays as it is."""

    @property
    def allowed(self) -> bool:
        """True when the action may go ahead."""
        return self.reply is Reply.ALLOW


@dataclass(frozen=True)
class Permit:
    """Proof that `decide` allowed `action`; use cases demand one. Made only by `permit`."""

    action: Action
    caller: Caller
    vm: VmFacts | None
    decision: Decision

    @property
    def actor(self) -> str:
        """User id for events."""
        return self.caller.user


ON_A_VM = frozenset({
    Action.VM_COPY, Action.VM_TAG, Action.VM_TOKEN,
    Action.VM_READ, Action.VM_CHANGE, Action.VM_DELETE, Action.VM_SHARE, Action.VM_SHELL, Action.VM_OPEN,
    Action.VM_MAIL,
})
"""Actions whose target is one VM."""
OF_A_SHELL = frozenset({Action.VM_SHELL, Action.VM_OPEN, Action.VM_READ, Action.VM_TOKEN})
"""What a person with a shell may do: from inside they reach every port and read every measurement anyway."""


WITHIN_A_TAG = frozenset({
    Action.NOTHING, Action.ACCOUNT_READ, Action.VM_LIST, Action.TOKEN_CREATE, Action.VM_READ, Action.VM_SHELL,
    Action.VM_OPEN, Action.VM_TOKEN,
})
"""What a key that is limited to a tag may do: reach, and hand on no more than it has. It changes nothing."""


def decide(action: Action, facts: Facts) -> Decision:
    """Judge one action. Public does not erase identity: an owner of a public VM is still the owner."""
    if not _in_scope(facts):
        return Decision(Reply.FORBID, Reason.TOKEN_SCOPE)
    if action is Action.NOTHING:
        return Decision(Reply.ALLOW, Reason.ANYONE)
    if action is Action.VM_MAIL:
        return _mail(facts.vm)
    if action in ON_A_VM:
        return _on_vm(action, facts)
    if not facts.caller.known:
        return Decision(Reply.LOGIN, Reason.NOT_SIGNED_IN)
    if facts.caller.tag and action not in WITHIN_A_TAG:
        return Decision(Reply.FORBID, Reason.KEY_TAG)
    if action is Action.INVITE and facts.caller.role is not Role.ADMIN:
        return Decision(Reply.FORBID, Reason.ROLE)
    return Decision(Reply.ALLOW, Reason.SIGNED_IN)


def permit(action: Action, facts: Facts) -> tuple[Permit | None, Decision]:
    """The decision, and the permit when it allows."""
    decision = decide(action, facts)
    made = Permit(action, facts.caller, facts.vm, decision) if decision.allowed else None
    return made, decision


def _mail(vm: VmFacts | None) -> Decision:
    # Anybody can write any sender, so there is none to sign in: a VM without mail looks like no VM.
    if vm is None:
        return Decision(Reply.HIDE, Reason.NO_VM)
    return Decision(Reply.ALLOW, Reason.ANYONE) if vm.takes_mail else Decision(Reply.HIDE, Reason.MAIL_OFF)


def _on_vm(action: Action, facts: Facts) -> Decision:
    caller, vm = facts.caller, facts.vm
    if vm is None:
        return _unseen(caller, Reason.NO_VM)
    if caller.tag and caller.tag in vm.tags and action not in WITHIN_A_TAG:
        return Decision(Reply.FORBID, Reason.KEY_TAG)
    reached = not caller.tag or caller.tag in vm.tags
    if reached and caller.known and caller.user == vm.owner:
        return Decision(Reply.ALLOW, Reason.OWNER)
    if action is Action.VM_OPEN and facts.port in vm.public_ports:
        return Decision(Reply.ALLOW, Reason.PUBLIC)
    if not reached:
        return _unseen(caller, Reason.KEY_TAG)
    return _by_grant(action, facts, vm)


def _by_grant(action: Action, facts: Facts, vm: VmFacts) -> Decision:
    grants = vm.grants.get(facts.caller.user, ()) if facts.caller.known else ()
    live = [g for g in grants if not g.expires or g.expires > facts.now]
    opening = [g for g in live if _opens(g, action, facts.port, vm)]
    if opening:
        longest = max(opening, key=_end)
        return Decision(Reply.ALLOW, _reason(longest), _end(longest))
    if live:
        return _unseen(facts.caller, Reason.NOT_SHARED)
    return _unseen(facts.caller, Reason.GRANT_ENDED if grants else Reason.NOT_YOURS)


def _opens(grant: Grant, action: Action, port: int | None, vm: VmFacts) -> bool:
    if grant.level is Level.SHELL:
        return action in OF_A_SHELL
    shared = vm.primary_port if grant.port == PRIMARY else grant.port
    return action is Action.VM_TOKEN or (action is Action.VM_OPEN and port == shared)


def _end(grant: Grant) -> float:
    return grant.expires or math.inf


def _reason(grant: Grant) -> Reason:
    if grant.level is Level.SHELL:
        return Reason.GRANTED_SHELL
    return Reason.LINK if grant.link else Reason.GRANTED


def _unseen(caller: Caller, reason: Reason) -> Decision:
    # Nobody signed in: a missing VM and a private one give the same invitation to sign in.
    return Decision(Reply.HIDE if caller.known else Reply.LOGIN, reason)


def names(caller: Caller, command: str) -> bool:
    """Whether the caller's token names a command, be it for one VM alone: what may be listed, not what is allowed."""
    allowed = caller.commands
    if allowed is None or command in allowed:
        return True
    return command == "ssh" and any(path.startswith("ssh ") for path in allowed)


def _in_scope(facts: Facts) -> bool:
    allowed = facts.caller.commands
    if allowed is None or not facts.command:
        return True
    path = facts.command
    return path in allowed or (path.startswith("ssh ") and "ssh" in allowed)
