"""The lobby: one command and out, a script piped in, or a prompt."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.access.decide import permit
from ussycode.access.facts import Caller, Facts
from ussycode.base.errors import ErrorCode, Failure, Kind, printable
from ussycode.catalog import TREE
from ussycode.catalog.clients import Values
from ussycode.cmdline.complete import complete
from ussycode.cmdline.help import HelpPage
from ussycode.doors.ssh import answers
from ussycode.doors.ssh.answers import Stopped
from ussycode.doors.ssh.attach import Guests
from ussycode.doors.ssh.keyboard import PASTE_OFF, PASTE_ON, Keyboard
from ussycode.doors.ssh.screen import Screen
from ussycode.doors.ssh.session import Ended, Key, Line, Pasted, Session
from ussycode.doors.ssh.watch import Watch
from ussycode.identity import lines
from ussycode.ports import App, Attach
from ussycode.sharing import asking
from ussycode.vms import ops as vms
from ussycode.vms.model import Vm
from ussycode.vms.views import WatchView

KEY_GONE = ErrorCode(
    "ssh.key_gone", Kind.UNAUTHENTICATED, "this key is no longer registered", hint="connect with another key"
)
NO_SUBSYSTEM = ErrorCode(
    "lobby.subsystem", Kind.USAGE, "the lobby has no {name}", hint="name a VM, for example: sftp demo@{host}"
)
MAX_NOTICES = 5
"""Notices that a greeting shows."""
STATUS_STOPPED = 130
"""Exit status of a wait ended by Ctrl-C, as shells have it."""
Recognise = Callable[[], Awaitable[Caller | None]]


@dataclass(frozen=True)
class Lobby:
    """One session in the lobby. `caller` is asked again before each command, so a removed key bites at once."""

    app: App
    session: Session
    screen: Screen
    caller: Recognise
    guests: Guests

    async def serve(self) -> Ended:
        """Do what the session asked for."""
        asked = self.session.asked
        if asked.subsystem is not None:
            failure = NO_SUBSYSTEM(name=asked.subsystem, host=self.app.config.domain)
            return await answers.show_failure(failure, self.screen)
        if asked.command is not None:
            return (await self.answer(asked.command))[0]
        return await (Prompt(self).serve() if self.session.editing else self._script())

    async def _script(self) -> Ended:
        ended: Ended = 0
        while (line := await self.session.read_piped_line()) is not None:
            ended, leave = await self.answer(line.decode(errors="replace"))
            if leave:
                break
        return ended

    async def answer(self, line: str) -> tuple[Ended, bool]:
        """Run one line; its status, and whether it ends the visit."""
        try:
            typed = answers.words(line, self.app.config.domain)
        except Failure as failure:
            return await answers.show_failure(failure, self.screen, "--json" in line.split()), False
        if not typed:
            return 0, False
        caller = await self.caller()
        if caller is None:
            return await answers.show_failure(KEY_GONE(), self.screen), True
        return await self._run(caller, typed)

    async def _run(self, caller: Caller, typed: Sequence[str]) -> tuple[Ended, bool]:
        outcome = await answers.execute(self.app, caller, typed, self.screen)
        if isinstance(outcome, Stopped):
            await self._tell_stopped(outcome)
            return STATUS_STOPPED, False
        if outcome.attach is not None:
            return await self._attach(outcome.attach), False
        if outcome.download is not None:
            return await answers.send(outcome.download, self.screen), False
        if isinstance(outcome.view, WatchView) and self.screen.fancy and not outcome.json:
            return await self._watch(outcome.view), False
        done = outcome.view is not None and not isinstance(outcome.view, HelpPage)
        return await answers.show(outcome, self.screen), done and outcome.command in ("exit", "logout")

    async def _attach(self, where: Attach) -> Ended:
        ended = await self.guests.attach(self.session, self.screen, where)
        if ended == "INT" and self.session.editing:
            await self.screen.say("")  # the ^C that the VM's terminal showed has no line of its own
        return ended

    async def _watch(self, view: WatchView) -> Ended:
        """Follow VMs; whoever opens a shell from there comes back to it."""
        watch = Watch(self.app, self.caller, self.screen, view)
        while (shell := await watch.serve()) is not None:
            await self.guests.attach(self.session, self.screen, shell)
        return 0

    async def _tell_stopped(self, stopped: Stopped) -> None:
        if stopped.undo is not None:
            await self.screen.complain(await stopped.undo())
            return
        name = stopped.command
        command = TREE.named(name)
        goes_on = command is not None and not command.reads_only and name != "ssh"
        await self.screen.complain(f"{name} goes on without you; ls shows how far it is" if goes_on else "stopped")

    async def mine(self) -> list[Vm]:
        """The caller's VMs; none for somebody whose key is gone."""
        caller = await self.caller()
        allowed = None if caller is None else permit(Action.VM_LIST, Facts(caller, command="ls"))[0]
        return [] if allowed is None else await vms.mine(self.app, allowed)


class Prompt:
    """The lobby for a person at a terminal."""

    def __init__(self, lobby: Lobby) -> None:
        self.lobby = lobby
        self.session, self.screen = lobby.session, lobby.screen
        self._names: list[Vm] = []
        self.keyboard = Keyboard(self.session, ())
        style = self.screen.style
        self.prompt = style.paint("ussycode", "magenta") + " ▶ " if self.screen.fancy else "ussycode > "

    async def serve(self) -> Ended:
        """Greet, then run lines until `exit` or Ctrl-D."""
        caller = await self.lobby.caller()
        known = await lines.remembered(self.lobby.app, caller.user) if caller else []
        await self._greet(bool(known))
        self.keyboard = Keyboard(self.session, known, self.prompt)
        self.session.chan.register_key("\t", self._tab)
        self.keyboard.attach()
        self._mark_pastes(True)
        try:
            return await self._lines()
        finally:
            self._mark_pastes(False)

    def _mark_pastes(self, on: bool) -> None:
        if self.screen.fancy and not self.session.gone:
            self.session.raw.write(PASTE_ON if on else PASTE_OFF)

    async def _lines(self) -> Ended:
        while True:
            self._names = await self.lobby.mine()
            await self.screen.say(self.prompt, end="")
            line = await self.session.read_line()
            if line is Key.EOF:
                await self.screen.say("")
                return 0
            if isinstance(line, Key):
                await self.screen.say("^C")
                continue
            if isinstance(line, Pasted):
                ended, leave = await self._paste(line)
            else:
                ended, leave = await self._line(line)
            if leave:
                return ended

    async def _line(self, line: Line) -> tuple[Ended, bool]:
        if not line.shown:
            await self.screen.say(line.text)
        return await self._do(line.text)

    async def _do(self, text: str) -> tuple[Ended, bool]:
        self.keyboard.entered(text)
        caller = await self.lobby.caller()
        if caller is not None:
            await lines.remember(self.lobby.app, caller.user, text)
        self._mark_pastes(False)  # whatever runs may hand the terminal to a shell
        ended = await self.lobby.answer(text)
        self._mark_pastes(True)
        return ended

    async def _paste(self, pasted: Pasted) -> tuple[Ended, bool]:
        """Run pasted lines one after the other once Enter says so; the first that fails ends it."""
        cut = f" (only the first {len(pasted.lines)} are taken)" if pasted.cut else ""
        wanted = [line for line in pasted.lines if line.strip()]
        await self.screen.say(f"{len(wanted)} pasted lines{cut}: Enter runs them, Ctrl-C forgets them. ", end="")
        answer = await self.session.read_line()
        if not isinstance(answer, Line) or answer.text.strip():
            await self.screen.say("forgotten")
            return 0, answer is Key.EOF
        for line in wanted:
            await self.screen.say(self.prompt + line)
            ended, leave = await self._do(line)
            if ended or leave:
                return ended, leave
        return 0, False

    async def _greet(self, known: bool) -> None:
        caller = await self.lobby.caller()
        mine = await self.lobby.mine()
        hello = "welcome back" if known or mine else "hello"
        paint = self.screen.style.paint
        name = caller.handle if caller else "stranger"
        home = self.lobby.app.config.host_url(self.lobby.app.config.domain)
        await self.screen.say("\n".join((
            f"{paint('ussycode', 'magenta')}  {paint(home, 'dim')}",
            f"{hello}, {paint(name, 'green')}.", _counts(mine), *_notices(mine), *await self._asked(caller),
            f"type {paint('help', 'cyan')} for commands, {paint('exit', 'cyan')} to leave; Tab completes.",
        )))

    async def _asked(self, caller: Caller | None) -> list[str]:
        found = await asking.waiting(self.lobby.app, caller.user) if caller is not None else []
        said = [f"{w.handle} asks to open {w.vm_name}: share approve {w.vm_name} {w.handle}" for w in found]
        more = [f"and {len(found) - MAX_NOTICES} more ask; share requests lists them"] if said[MAX_NOTICES:] else []
        return said[:MAX_NOTICES] + more

    def _tab(self, line: str, pos: int) -> tuple[str, int] | bool:
        # Called by the editor: what is raised here would end the whole connection.
        before, after = line[:pos], line[pos:]
        found = complete(TREE, before, self._values)
        partial = "" if before.endswith(" ") or not before else before.split()[-1]
        if not found:
            return False
        stem = _common(found)
        typed = before[: len(before) - len(partial)] + stem + (" " if len(found) == 1 else "")
        if typed == before:
            self.session.chan.write(f"{line}\n{'  '.join(found)}\n{self.prompt}")
            return line, pos
        return typed + after, len(typed)

    def _values(self, kind: str) -> Sequence[str]:
        tags = sorted({tag for vm in self._names for tag in vm.tags})
        return Values(self.lobby.app, tuple(vm.name for vm in self._names), tuple(tags))(kind)


def _common(found: Sequence[str]) -> str:
    first, last = min(found), max(found)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same]


def _notices(mine: Sequence[Vm]) -> list[str]:
    """What an owner should know at once, a few of them."""
    found = [f"{vm.name}: {printable(vm.detail or 'it failed')}; why {vm.name}" for vm in mine if vm.status == "failed"]
    found += [f"{vm.name}: {printable(told)}" for vm in mine for told in (vm.notice, vm.mail_notice) if told]
    more = [f"and {len(found) - MAX_NOTICES} more; doctor tells all"] if len(found) > MAX_NOTICES else []
    return found[:MAX_NOTICES] + more


def _counts(mine: Sequence[Vm]) -> str:
    running = sum(v.running for v in mine)
    if not mine:
        return "you have no VMs yet: new makes one."
    return f"{len(mine)} VM{'s' if len(mine) > 1 else ''}, {running or 'none'} running."
