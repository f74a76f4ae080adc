"""Which reply the edge gives itself when a request goes nowhere, and which paths are the platform's own."""
from __future__ import annotations

from ussycode.access.facts import Via
from ussycode.doors.edge import pages
from ussycode.doors.edge.facts import Judgement, Outcome
from ussycode.doors.edge.head import Request
from ussycode.doors.edge.pages import Local

SPECIAL = (b"/__ussycode", b"/__exe.dev")
"""Beginnings of paths that may be the platform's own."""
SECRET = (b"/login/", b"/__ussycode/share/")
"""Paths whose last segment signs somebody in, or lets them in: it is no business of a log."""


def is_special(target: bytes) -> bool:
    """Paths that the platform answers on every VM host, whether or not the VM exists."""
    if not target.startswith(SPECIAL):
        return False
    return any(target.startswith(p) and target[len(p) : len(p) + 1] in (b"", b"/", b"?") for p in SPECIAL)


def of_judgement(judgement: Judgement, request: Request, lobby: str) -> Local:
    """The reply where nothing is proxied; `lobby` is the command that leads there."""
    if judgement.outcome is Outcome.LOGIN:
        return pages.login(request.target, request.wants_page, request.is_git)
    if judgement.outcome is Outcome.STOPPED and judgement.owner and judgement.vm is not None:
        return pages.stopped(judgement.vm.name, judgement.vm.phase, lobby)
    if judgement.outcome is Outcome.NOWHERE and judgement.caller.via is Via.SESSION:
        return pages.MAY_ASK
    return _REPLIES[judgement.outcome]


def of_failure(reason: str, judgement: Judgement | None) -> Local:
    """The reply when a VM's side broke before it answered; `reason` is the word for the log."""
    if reason == "guest.refused" and judgement is not None and judgement.vm is not None:
        return pages.nothing_listens(judgement.vm.name, judgement.port, judgement.owner)
    return _FAILURES.get(reason, pages.APP_SILENT)


_REPLIES = {
    Outcome.NOWHERE: pages.NOT_FOUND, Outcome.STOPPED: pages.STOPPED, Outcome.CLOSED: pages.GRACE_OVER,
    Outcome.STARTING: pages.STARTING,
}
_FAILURES = {
    "too_many": pages.BUSY, "guest.busy": pages.BUSY, "app_closed": pages.APP_BROKE, "app_malformed": pages.APP_BROKE,
}
