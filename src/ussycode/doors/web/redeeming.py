"""Opening a share link: a page that names what is offered, and a button that takes it."""
from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ussycode.access.facts import Caller, Via
from ussycode.doors.web.asked import Asked
from ussycode.doors.web.login import Login
from ussycode.doors.web.pages import Pages
from ussycode.identity import ops as identity
from ussycode.ports import App
from ussycode.sharing import links


@dataclass(frozen=True)
class Redeeming:
    """Pages under `/__ussycode/share/` of every VM host. Who is not signed in learns nothing about a link."""

    app: App
    pages: Pages
    login: Login

    async def ask(self, request: Request, asked: Asked, token: str) -> Response:
        """`GET`: what the link gives, and to whom one becomes known; on at once for who may go there already."""
        caller = await self._caller(request, asked)
        if caller is None:
            return self._sign_in(request)
        offer = await links.look(self.app, caller, token)
        if offer.there:
            return RedirectResponse(offer.url, 303)
        shown = caller.email or caller.handle
        return self.pages.page("share.html", vm=offer.vm, owner=offer.owner, you=shown, action=request.url.path)

    async def accept(self, request: Request, asked: Asked, token: str) -> Response:
        """`POST`: makes the share, then opens it. Not `GET`: no other site may make anybody known to an owner."""
        self.login.require_own_form(request, asked)
        caller = await self._caller(request, asked)
        if caller is None:
            return self._sign_in(request)
        offer = await links.redeem(self.app, caller, token)
        return RedirectResponse(offer.url, 303)

    async def _caller(self, request: Request, asked: Asked) -> Caller | None:
        found = await self.login.current(request, asked)
        return None if found is None else identity.caller_of(found[1], Via.SESSION)

    def _sign_in(self, request: Request) -> Response:
        return RedirectResponse("/__ussycode/login?" + urlencode({"redirect": request.url.path}), 303)
