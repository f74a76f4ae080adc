"""Asking to be let into a VM on its own host, and the owner's answer on the base domain."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ussycode.access.facts import Via
from ussycode.base.errors import printable
from ussycode.dispatch import Call, run
from ussycode.doors.web import body
from ussycode.doors.web.asked import Asked, name_and_port
from ussycode.doors.web.login import Login
from ussycode.doors.web.pages import Pages
from ussycode.identity.model import User
from ussycode.identity.ops import caller_of
from ussycode.ports import App
from ussycode.sharing import asking

MAX_MESSAGE = 200
"""Characters of what somebody who asks wants to say."""


@dataclass(frozen=True)
class Asking:
    """`/__ussycode/request` on every VM host: the same words whether or not there is such a VM."""

    app: App
    pages: Pages
    login: Login

    async def offer(self, request: Request, asked: Asked) -> Response:
        """`GET`: what the owner would see, and a button."""
        found = await self.login.current(request, asked)
        if found is None:
            return self._sign_in()
        return self.pages.page("request.html", host=asked.host, user=found[1], limit=MAX_MESSAGE, done=False)

    async def ask(self, request: Request, asked: Asked) -> Response:
        """`POST`: tells the owner, if there is one; who may enter already goes in."""
        self.login.require_own_form(request, asked)
        found = await self.login.current(request, asked)
        if found is None:
            return self._sign_in()
        said = printable(" ".join((await body.form(request)).get("message", "").split()), MAX_MESSAGE)
        name, port = name_and_port(self.app.config, asked.host)
        place = asking.Place(asked.host, name, port)
        if await asking.ask(self.app, caller_of(found[1], Via.SESSION), place, said):
            return RedirectResponse("/", 303)
        return self.pages.page("request.html", host=asked.host, user=found[1], limit=MAX_MESSAGE, done=True)

    def _sign_in(self) -> Response:
        return RedirectResponse("/__ussycode/login?" + urlencode({"redirect": "/__ussycode/request"}), 303)


@dataclass(frozen=True)
class Answering:
    """`/requests` on the base domain; its buttons are `share approve` and `share decline`."""

    app: App
    pages: Pages
    login: Login

    async def page(self, request: Request, asked: Asked) -> Response:
        """`GET`: who asks, with two buttons each; looking answers nothing."""
        found = await self.login.current(request, asked)
        if found is None:
            return RedirectResponse("/login?next=/requests", 303)
        listed = await self._run(found[1], asked, "requests")
        return self.pages.page("requests.html", handle=found[1].handle, requests=listed["requests"])

    async def approve(self, request: Request, asked: Asked) -> Response:
        """`POST /requests/approve`."""
        return await self._answer(request, asked, "approve")

    async def decline(self, request: Request, asked: Asked) -> Response:
        """`POST /requests/decline`."""
        return await self._answer(request, asked, "decline")

    async def _answer(self, request: Request, asked: Asked, verb: str) -> Response:
        self.login.require_own_form(request, asked)
        found = await self.login.current(request, asked)
        if found is None:
            return RedirectResponse("/login?next=/requests", 303)
        form = await body.form(request)
        await self._run(found[1], asked, verb, "--", form.get("vm", ""), form.get("who", ""))
        return RedirectResponse("/requests", 303)

    async def _run(self, user: User, asked: Asked, *words: str) -> dict[str, Any]:
        caller, words = caller_of(user, Via.SESSION), ("share", *words)
        outcome = await run(self.app, Call(caller, words, "dashboard", json=True, request_id=asked.request_id))
        if outcome.failure is not None:
            raise outcome.failure
        assert outcome.view is not None
        return cast(dict[str, Any], outcome.view.document())
