"""The only way to execute a command: find, parse, gather facts, decide, run, report."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, cast

from ussycode.access.actions import Action
from ussycode.access.decide import Decision, Permit, Reason, Reply, permit
from ussycode.access.facts import Caller, Facts, VmFacts
from ussycode.base import ids
from ussycode.base.db import Tx
from ussycode.base.errors import INTERNAL, ErrorCode, Failure, Kind
from ussycode.catalog import TREE
from ussycode.cmdline import help as pages
from ussycode.cmdline.parse import Parsed, parse
from ussycode.cmdline.render import View
from ussycode.cmdline.spec import Command
from ussycode.ports import App, Attach, Ctx, Download, Silent, Talk
from ussycode.sharing import facts
from ussycode.vms import ops as vms
from ussycode.vms.ops import NO_SUCH_VM
from ussycode.vms.views import RemoveView

FORBIDDEN = ErrorCode(
    "token.scope", Kind.FORBIDDEN, "this token does not allow {command}", hint="make one whose cmds name it"
)
KEY_LIMITED = ErrorCode(
    "key.limited", Kind.FORBIDDEN, "this key reaches VMs tagged {tag} and may not run {command}",
    hint="use another key of yours: ssh-key list",
)
NOT_ADMIN = ErrorCode("access.role", Kind.FORBIDDEN, "{command} is for admins", hint="ask the operator")
SIGN_IN = ErrorCode("access.sign_in", Kind.UNAUTHENTICATED, "sign in first", hint="connect with a registered SSH key")
SSH_NO_VM = ErrorCode("ssh.no_vm", Kind.NOT_FOUND, 'VM "{name}" not found', hint="ls shows your VMs")


@dataclass(frozen=True)
class Call:
    """One command line to run. `via` names the door for telemetry: ssh, exec, dashboard."""

    caller: Caller
    words: Sequence[str]
    via: str
    json: bool = False
    talk: Talk = field(default_factory=Silent)
    request_id: str = field(default_factory=ids.request_id)


@dataclass(frozen=True)
class Outcome:
    """How it ended: a view, a stream to attach, a file to send, or a failure. `json` is what the line asked for."""

    view: View | None = None
    attach: Attach | None = None
    download: Download | None = None
    failure: Failure | None = None
    json: bool = False
    command: str = ""
    request_id: str = ""
    """The call's, by which the log knows it."""

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 2 wrong usage, 127 unknown command."""
        if self.failure is not None:
            return self.failure.kind.exit_code
        return 1 if isinstance(self.view, RemoveView) and self.view.failed else 0


async def run(app: App, call: Call) -> Outcome:
    """Run one command line. Never raises but for cancellation: what goes wrong is in the outcome."""
    # Until it is parsed: a line that names no command, or is wrong, is answered as it asked to be.
    started, name, json = time.perf_counter(), "", call.json or "--json" in call.words
    try:
        command, words = TREE.find(call.words)
        name = command.name
        parsed = parse(command, words, call.json)
        json = parsed.json
        with app.telemetry.span(f"command {name}", user=call.caller.user, via=call.via):
            outcome = await _run(app, call, parsed)
    except Failure as failure:
        outcome = Outcome(failure=failure, json=json, command=name)
    except Exception as error:  # the outermost frame of every command
        app.telemetry.log.exception("command failed", command=name, request_id=call.request_id)
        outcome = Outcome(failure=INTERNAL(request_id=call.request_id).because(error), json=json, command=name)
    code = outcome.failure.code if outcome.failure else "ok"
    app.telemetry.command(name or "unknown", call.via, code, time.perf_counter() - started)
    return replace(outcome, request_id=call.request_id)


async def _run(app: App, call: Call, parsed: Parsed) -> Outcome:
    command = parsed.command
    if parsed.help:
        return Outcome(view=pages.of_command(command), json=parsed.json, command=command.name)
    named = _named(command, parsed.args)
    found = await app.db.read(lambda tx: _facts(tx, app, named)) if named else {}
    try:
        permits = _permits(app, call.caller, command, named, found)
    except Failure as failure:
        raise await _with_a_guess(app, call.caller, failure) from None
    main = next(iter(permits.values()), None)
    if main is None:
        return Outcome(view=RemoveView((), tuple(named), {}), json=parsed.json, command=command.name)
    ctx = Ctx(app, call.caller, main, permits, call.talk, call.request_id)
    result = await command.handler(ctx, parsed.args)
    if isinstance(result, Attach):
        return Outcome(attach=result, json=parsed.json, command=command.name)
    if isinstance(result, Download):
        return Outcome(download=result, json=parsed.json, command=command.name)
    return Outcome(view=cast(View, result), json=parsed.json, command=command.name)


def _named(command: Command, args: Any) -> list[str]:
    if command.on.kind != "vm":
        return []
    value = getattr(args, command.on.argument)
    values = value if isinstance(value, tuple) else (value,)
    return list(dict.fromkeys(v.rpartition("@")[2] for v in values))


def _facts(tx: Tx, app: App, named: Sequence[str]) -> dict[str, VmFacts]:
    found = {name: facts.of_vm(tx, app.images, name) for name in named}
    return {name: fact for name, fact in found.items() if fact is not None}


def _permits(
    app: App, caller: Caller, command: Command, named: Sequence[str], found: dict[str, VmFacts]
) -> dict[str, Permit]:
    made: dict[str, Permit] = {}
    several = any(p.many and p.kind == "word" and p.name == command.on.argument for p in command.params)
    for name in named or [""]:
        what = f"ssh {name}" if command.name == "ssh" else command.name
        action = cast(Any, command.needs)
        allowed, decision = permit(action, Facts(caller, found.get(name), command=what, now=app.clock.now()))
        app.telemetry.decision(action, decision.reply, decision.reason)
        if allowed is not None:
            made[name] = allowed
        elif not several or decision.reply is not Reply.HIDE:
            if decision.reason is Reason.TOKEN_SCOPE:
                app.telemetry.token(FORBIDDEN.code)
            raise _refusal(command, name, decision, caller)
    return made


async def _with_a_guess(app: App, caller: Caller, failure: Failure) -> Failure:
    """The failure, with the caller's VM that was probably meant by a name that is none of theirs."""
    mine = permit(Action.VM_LIST, Facts(caller, command="ls"))[0]
    if failure.error in (NO_SUCH_VM, SSH_NO_VM) and mine is not None:
        names = [vm.name for vm in await vms.mine(app, mine)]
        failure.meant = next(iter(get_close_matches(failure.words["name"], names, 1)), "")
    return failure


def _refusal(command: Command, name: str, decision: Decision, caller: Caller) -> Failure:
    if decision.reason is Reason.KEY_TAG and decision.reply is Reply.FORBID:
        return KEY_LIMITED(tag=caller.tag, command=command.name)
    if decision.reason is Reason.ROLE:
        return NOT_ADMIN(command=command.name)
    if decision.reply is Reply.FORBID:
        return FORBIDDEN(command=command.name)
    if decision.reply is Reply.LOGIN:
        return SIGN_IN()
    return SSH_NO_VM(name=name) if command.name == "ssh" else NO_SUCH_VM(name=name)
