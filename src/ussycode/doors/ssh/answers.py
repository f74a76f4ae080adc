"""Running one command line for a session and showing how it ended."""
from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ussycode.access.facts import Caller
from ussycode.base import ids
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.catalog.manual import DocView
from ussycode.cmdline.lex import MAX_LINE, split
from ussycode.cmdline.render import failure_document
from ussycode.dispatch import Call, Outcome, run
from ussycode.doors.ssh import pager
from ussycode.doors.ssh.screen import Screen
from ussycode.ports import App, Download, Undo

TOO_LONG = ErrorCode(
    "line.too_long", Kind.TOO_LARGE, "the command line is longer than {limit} bytes", hint="pipe large input instead"
)
FILES = ErrorCode(
    "lobby.files", Kind.USAGE, "{tool} needs a VM: the lobby keeps no files", hint="name one: {example}"
)
TO_TERMINAL = ErrorCode(
    "export.terminal", Kind.USAGE, "a disk is not for a terminal", hint="ssh HOST export VM > {name}, without -t"
)
CUT_OFF = ErrorCode("export.cut_off", Kind.FAILED, "the disk cannot be read any further; the file is not whole")
TOOLS = {
    "scp": "scp FILE demo@{host}:", "sftp": "sftp demo@{host}", "rsync": "rsync FILE demo@{host}:",
    "git-upload-pack": "git clone demo@{host}:REPO", "git-receive-pack": "git push demo@{host}:REPO",
    "git-upload-archive": "git archive --remote demo@{host}:REPO HEAD",
}
"""Programs that clients start at the other end, and how they are meant to be used."""


@dataclass(frozen=True)
class Stopped:
    """The person in front no longer waits; `command` may go on, unless `undo` takes back what it began."""

    command: str
    undo: Undo | None = None


def words(line: str, host: str) -> tuple[str, ...]:
    """Words of a command line for the lobby. Raises UNBALANCED, TOO_LONG, or FILES for a tool's own protocol."""
    if len(line.encode(errors="replace")) > MAX_LINE:
        raise TOO_LONG(limit=MAX_LINE)
    found = split(line)
    if found and found[0] in TOOLS:
        raise FILES(tool=found[0], example=TOOLS[found[0]].format(host=host))
    return found


async def execute(app: App, caller: Caller, typed: Sequence[str], screen: Screen) -> Outcome | Stopped:
    """Run one command with a progress line; Ctrl-C ends the waiting."""
    call = Call(caller, typed, "ssh", talk=screen)
    screen.undo = None
    task = asyncio.create_task(run(app, call))
    screen.session.on_interrupt = task.cancel
    try:
        async with screen.waiting(" ".join(typed[:2])):
            await asyncio.wait({task})
    finally:
        screen.session.on_interrupt = None
        task.cancel()
    return Stopped(typed[0], screen.undo) if task.cancelled() else task.result()


async def show(outcome: Outcome, screen: Screen) -> int:
    """Show a view or a failure; the exit status. With JSON there is one document on standard output, nothing else."""
    if outcome.failure is not None:
        return await show_failure(outcome.failure, screen, outcome.json, outcome.request_id)
    assert outcome.view is not None
    view, text = outcome.view, "" if outcome.json else outcome.view.text(screen.style)
    if isinstance(view, DocView) and view.whole and text and pager.too_long(text, screen):
        await pager.show(f"{view.found[0].title}: doc {view.found[0].slug}", view.found[0].text.rstrip(), screen)
    else:
        await screen.say(text if not outcome.json else json.dumps(view.document(), indent=2))
    return outcome.exit_code


async def send(what: Download, screen: Screen) -> int:
    """Send a file as standard output; the exit status. Nobody wants one on a terminal."""
    async with what.export as export:
        if screen.tty:
            return await show_failure(TO_TERMINAL(name=what.name), screen)
        try:
            async for piece in export.chunks():
                await screen.session.write(piece)
                if screen.session.gone:
                    return 1
        except OSError as error:
            return await show_failure(CUT_OFF().because(error), screen)
    return 0


async def show_failure(failure: Failure, screen: Screen, as_json: bool = False, request_id: str = "") -> int:
    """Show a failure; the exit status. One that no command answered with has an id of its own."""
    if as_json:
        document = failure_document(failure, request_id or ids.request_id(), rich=True)
        await screen.say(json.dumps(document, indent=2))
    else:
        await screen.fail(failure)
    return failure.kind.exit_code
