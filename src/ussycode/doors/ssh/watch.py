"""`ls --watch`: the caller's VMs on a whole screen, as they are this second, with keys to act on them."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ussycode.access.facts import Caller
from ussycode.base.errors import printable
from ussycode.cmdline.render import PLAIN
from ussycode.dispatch import Call, Outcome, run
from ussycode.doors.ssh.fullscreen import Fullscreen, taken
from ussycode.doors.ssh.screen import Screen
from ussycode.ports import App, Attach
from ussycode.vms.model import Vm
from ussycode.vms.views import ListView, WatchView

REFRESH_SECONDS = 1.0
"""How old what is shown may be."""
MAX_ACTIONS = 16
"""Actions under way at once."""
HELP = "q quit  j k move  enter shell  s start  x stop  p pause/resume  r restart  d delete"
ACTIONS = {"s": "start", "x": "stop", "p": "pause", "r": "restart"}
Recognise = Callable[[], Awaitable[Caller | None]]


class Watch:
    """The screen for one visitor. `caller` is asked again before each look, so that a removed key ends it."""

    def __init__(self, app: App, caller: Recognise, screen: Screen, view: WatchView) -> None:
        self.app, self.caller, self.screen, self.view = app, caller, screen, view
        self._chosen = ""
        self._said = ""
        self._asked = ""
        """The VM that `d` was pressed for; `y` removes it."""
        self._acting: set[asyncio.Task[None]] = set()

    async def serve(self) -> Attach | None:
        """Follow the VMs until the visitor leaves: a shell to open next, or None for good."""
        async with taken(self.screen) as full:
            while await self._look():
                await full.draw(self._lines(full))
                for key in await full.keys(REFRESH_SECONDS):
                    if key in ("q", "quit", "gone"):
                        return None
                    if key == "enter" and not self._asked:
                        wanted = await self._shell()
                        if wanted is not None:
                            return wanted
                    await self._press(key)
        return None

    async def _look(self) -> bool:
        caller = await self.caller()
        if caller is None:
            return False
        outcome = await run(self.app, Call(caller, ("ls", "-l", "--", self.view.pattern), "ssh"))
        if not isinstance(outcome.view, ListView):
            return False
        self.view = WatchView(outcome.view.rows, True, "", outcome.view.usage, self.view.pattern)
        names = [vm.name for vm in self._vms]
        if self._chosen not in names:
            self._chosen = names[0] if names else ""
        return True

    @property
    def _vms(self) -> list[Vm]:
        return [vm for vm, _, _ in self.view.rows]

    @property
    def _vm(self) -> Vm | None:
        return next((vm for vm in self._vms if vm.name == self._chosen), None)

    async def _press(self, key: str) -> None:
        if self._asked:
            asked, self._asked = self._asked, ""
            if key == "y":
                await self._act(("rm", "--", asked))
            else:
                self._said = f"{asked} stays"
        elif key in ("j", "down", "k", "up"):
            self._move(1 if key in ("j", "down") else -1)
        elif key == "d" and self._vm is not None:
            self._asked, self._said = self._vm.name, ""
        elif key in ACTIONS and self._vm is not None:
            verb = "resume" if key == "p" and self._vm.status == "paused" else ACTIONS[key]
            await self._act((verb, "--", self._vm.name))

    def _move(self, step: int) -> None:
        names = [vm.name for vm in self._vms]
        if self._chosen in names:
            self._chosen = names[max(0, min(len(names) - 1, names.index(self._chosen) + step))]

    async def _act(self, words: tuple[str, ...]) -> None:
        """Begin a command; it goes on when the visitor leaves, as any does."""
        caller = await self.caller()
        if caller is None or len(self._acting) >= MAX_ACTIONS:
            self._said = "too much at once; wait for what is under way"
            return
        self._said = f"{words[0]} {words[-1]} …"
        task = asyncio.create_task(self._run(caller, words))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _run(self, caller: Caller, words: tuple[str, ...]) -> None:
        self._said = _told(await run(self.app, Call(caller, words, "ssh")))

    async def _shell(self) -> Attach | None:
        caller, vm = await self.caller(), self._vm
        if caller is None or vm is None:
            return None
        outcome = await run(self.app, Call(caller, ("ssh", vm.name), "ssh"))
        self._said = _told(outcome) if outcome.attach is None else ""
        return outcome.attach

    def _lines(self, full: Fullscreen) -> list[str]:
        width, rows = full.size
        paint = self.screen.style.paint
        table = [line[:width] for line in self.view.text(PLAIN).split("\n")]
        count = len(self._vms)
        if not count:
            return [*table, "", HELP[:width]]
        chosen = [vm.name for vm in self._vms].index(self._chosen)
        first = max(0, min(chosen - (rows - 6) // 2, count - (rows - 5)))
        body = [paint(f"> {line}"[:width], "cyan") if n == chosen else f"  {line}"[:width]
                for n, line in enumerate(table[1 : count + 1])]
        ask = f"delete {self._asked}? y removes it, any other key does not" if self._asked else ""
        said = ask or printable(self._said)
        return [paint(f"  {table[0]}"[:width], "bold"), *body[first : first + rows - 5], "", said[:width], HELP[:width]]


def _told(outcome: Outcome) -> str:
    if outcome.failure is not None:
        return outcome.failure.sentence
    return outcome.view.text(PLAIN).split("\n")[0] if outcome.view is not None else ""
