"""The first page of the base domain: your VMs, or how to begin."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ussycode.access.facts import Via
from ussycode.dispatch import Call, run
from ussycode.doors.web.asked import Asked
from ussycode.doors.web.login import Login
from ussycode.doors.web.pages import Pages
from ussycode.identity.model import User
from ussycode.identity.ops import caller_of
from ussycode.ports import App
from ussycode.sharing import asking


@dataclass(frozen=True)
class Dashboard:
    """`/` and the part of it that is asked for again and again."""

    app: App
    pages: Pages
    login: Login

    async def home(self, request: Request, asked: Asked) -> Response:
        """`GET /`: the dashboard, or the front page for who is not signed in."""
        found = await self.login.current(request, asked)
        if found is None:
            return self.pages.page("front.html")
        _, user = found
        vms = await self._vms(user, asked)
        asked_for = await asking.waiting(self.app, user.id)
        return self.pages.page(
            "dashboard.html", handle=user.handle, role=user.role.value, vms=vms, requests=asked_for
        )

    async def rows(self, request: Request, asked: Asked) -> Response:
        """`GET /dashboard/vms`: only the list, for the page that refreshes itself."""
        found = await self.login.current(request, asked)
        if found is None:
            return RedirectResponse("/login", 303)
        return self.pages.page("vms.html", vms=await self._vms(found[1], asked))

    async def _vms(self, user: User, asked: Asked) -> list[dict[str, Any]]:
        words = ("ls", "--long")
        caller = caller_of(user, Via.SESSION)
        outcome = await run(self.app, Call(caller, words, "dashboard", json=True, request_id=asked.request_id))
        if outcome.failure is not None:
            raise outcome.failure
        assert outcome.view is not None
        vms = cast(dict[str, Any], outcome.view.document())["vms"]
        return [vm | {"ssh_command": self.app.config.ssh_command(vm["vm_name"])} for vm in vms]
