"""Who just connected: an account behind the key, or the dialogue that makes one."""
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ussycode.access.facts import Caller, Role
from ussycode.base import names
from ussycode.base.errors import ErrorCode, Failure, Kind, printable
from ussycode.doors.ssh.routes import login_name
from ussycode.doors.ssh.screen import Screen
from ussycode.doors.ssh.session import Line
from ussycode.identity import ops
from ussycode.identity.keys import PublicKey
from ussycode.identity.model import User
from ussycode.ports import App

NOT_REGISTERED = ErrorCode(
    "ssh.not_registered", Kind.UNAUTHENTICATED, "this key is not registered here yet, so nothing was run",
    hint="register once in a terminal: {command}",
)
TRIES = 5
"""Handles that one dialogue lets somebody try."""
ADVICE = (
    "  that cannot be a handle: take 2 to 20 of a-z, 0-9 and -,",
    "  begin with a letter and do not end with a dash.",
)
Known = tuple[Caller, User]
Settle = Callable[[str], Awaitable[User]]
"""Makes the account, or renames it, to a handle. Raises HANDLE_TAKEN."""


@dataclass(frozen=True)
class Arrival:
    """One session of somebody who proved to hold `key` and gave `username`."""

    app: App
    screen: Screen
    key: PublicKey
    username: str

    async def who(self) -> Known | None:
        """Caller and account; None when they left without one. Raises NOT_REGISTERED without a terminal."""
        found = await ops.recognise(self.app, self.key.fingerprint)
        talks = self.screen.session.editing
        if found is None:
            return await (self._register() if talks else self._stand_in())
        if talks and not found[1].handle_chosen:
            return await self._ask(lambda handle: ops.choose_handle(self.app, found[1].id, handle))
        return found

    async def _register(self) -> Known | None:
        if await ops.may_register(self.app, self.key.fingerprint) is None:
            raise ops.REGISTRATION_CLOSED(fingerprint=self.key.fingerprint)
        return await self._ask(
            lambda handle: ops.register(self.app, self.key, handle, login_name(self.username))
        )

    async def _stand_in(self) -> Known | None:
        role = await ops.may_register(self.app, self.key.fingerprint)
        if role is not Role.ADMIN:
            raise NOT_REGISTERED(command=self.app.config.ssh_command())
        name = login_name(self.username)
        try:
            await ops.register(self.app, self.key, await ops.free_handle(self.app, name), name, chosen=False)
        except Failure as failure:
            if failure.error not in (ops.KEY_TAKEN, ops.HANDLE_TAKEN):
                raise
            # Two scripts at once: the other one made the account, or took the handle this moment.
            if failure.error is ops.HANDLE_TAKEN:
                return await self._stand_in()
        return await ops.recognise(self.app, self.key.fingerprint)

    async def _ask(self, settle: Settle) -> Known | None:
        await self.screen.say(banner(self.screen.fancy))
        for _ in range(TRIES):
            await self.screen.say("  > handle: ", end="")
            line = await self.screen.session.read_line()
            if not isinstance(line, Line):
                await self.screen.say("\n  goodbye.")
                return None
            if await self._settled(line.text.strip().lower(), settle):
                return await ops.recognise(self.app, self.key.fingerprint)
        await self.screen.say("  that is enough for now; come back when you have one in mind. goodbye.")
        return None

    async def _settled(self, handle: str, settle: Settle) -> bool:
        problem = objection(handle)
        if not problem:
            try:
                user = await settle(handle)
                await self.screen.say(f"\n  welcome, {self.screen.style.paint(user.handle, 'green')}. you're in.\n")
                return True
            except Failure as failure:
                if failure.error is ops.KEY_TAKEN:
                    return True  # registered in another window meanwhile
                if failure.error is not ops.HANDLE_TAKEN:
                    raise
                problem = f'  "{handle}" is taken. try another.'
        await self.screen.say(problem)
        return False


def objection(handle: str) -> str:
    """What to say against a handle before asking whether it is free; empty when nothing."""
    if not handle:
        return "  a handle needs at least two letters; nothing is not enough."
    if not names.HANDLE.fullmatch(handle):
        return "\n".join(ADVICE)
    if handle in names.RESERVED:
        return f'  "{printable(handle)}" is kept for the platform. try another.'
    return ""


def banner(fancy: bool) -> str:
    """The box that greets a new key."""
    lines = (
        "ussycode: hello, new key.",
        "",
        "your ssh key is your account here;",
        "there is no password and no form.",
        "pick a handle: it is how others see you.",
    )
    width = max(map(len, lines)) + 4
    top, bottom, side = ("┌{}┐", "└{}┘", "│") if fancy else ("+{}+", "+{}+", "|")
    bar = ("─" if fancy else "-") * width
    body = [f"  {side}  {line.ljust(width - 2)}{side}" for line in lines]
    return "\n".join(["", "  " + top.format(bar), *body, "  " + bottom.format(bar), ""])
