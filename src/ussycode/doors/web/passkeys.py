"""Passkeys in the browser: the page that lists and makes them, and signing in with one."""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ussycode.access.facts import Via
from ussycode.base import secrets
from ussycode.base.errors import ErrorCode, Kind
from ussycode.dispatch import Call, run
from ussycode.doors.web import body, cookies
from ussycode.doors.web.asked import Asked
from ussycode.doors.web.exec import json_response
from ussycode.doors.web.login import Login
from ussycode.doors.web.pages import Pages
from ussycode.identity import passkey_ops
from ussycode.identity.model import Session, User
from ussycode.identity.ops import caller_of
from ussycode.identity.passkey_commands import passkey_name
from ussycode.ports import App

MAX_ANSWER = 32_768
"""Bytes of what an authenticator answers, with room for a public key and an attestation that nobody asked for."""
MAX_HANDLE = 128
"""Characters of an account's handle among authenticators, as the page sends it back."""
NOT_SIGNED_IN = ErrorCode(
    "passkey.not_signed_in", Kind.UNAUTHENTICATED, "your sign-in is over", hint="sign in again, then add the passkey"
)
NOT_OURS = ErrorCode("passkey.bad_request", Kind.BAD_REQUEST, "this is not what the page sends", hint="load it anew")
BAD_NAME = ErrorCode("passkey.bad_name", Kind.BAD_REQUEST, "a passkey's name has {why}", hint="pick another name")


@dataclass(frozen=True)
class Passkeys:
    """`/passkeys` and `/login/passkey` of the base domain. The page's script talks JSON with both."""

    app: App
    pages: Pages
    login: Login

    async def page(self, request: Request, asked: Asked) -> Response:
        """`GET /passkeys`: what there is, and a button that makes one."""
        found = await self.login.current(request, asked)
        if found is None:
            return RedirectResponse("/login", 303)
        document = await self._run(found[1], asked, "list")
        return self.pages.page("passkeys.html", handle=found[1].handle, passkeys=document["passkeys"])

    async def begin(self, request: Request, asked: Asked) -> Response:
        """`POST /passkeys/begin`: what the browser shall make."""
        session, _ = await self._signed_in(request, asked)
        return _options(await passkey_ops.begin_adding(self.app, session))

    async def finish(self, request: Request, asked: Asked) -> Response:
        """`POST /passkeys/finish`: what it made is kept."""
        session, _ = await self._signed_in(request, asked)
        given = await _json(request)
        await passkey_ops.add(self.app, session, _handle(given), given["credential"], _name(given))
        return json_response({"location": "/passkeys"})

    async def rename(self, request: Request, asked: Asked) -> Response:
        """`POST /passkeys/rename`, a plain form."""
        return await self._change(request, asked, "rename", "name", "new_name")

    async def remove(self, request: Request, asked: Asked) -> Response:
        """`POST /passkeys/remove`, a plain form."""
        return await self._change(request, asked, "remove", "name")

    async def begin_sign_in(self, request: Request, asked: Asked) -> Response:
        """`POST /login/passkey/begin`: what the browser shall show; the challenge is for this browser alone."""
        self.login.require_own_form(request, asked)
        note = secrets.token()
        made = _options(await passkey_ops.begin_sign_in(self.app, note))
        cookies.remember(made, cookies.PASSKEY, note)
        return made

    async def finish_sign_in(self, request: Request, asked: Asked) -> Response:
        """`POST /login/passkey/finish`: a session for a passkey, and where the browser wanted to go."""
        self.login.require_own_form(request, asked)
        given, agent = await _json(request), request.headers.get("user-agent", "")
        note = request.cookies.get(cookies.PASSKEY, "")
        made = await passkey_ops.sign_in(self.app, note, given["credential"], agent)
        response = json_response({"location": await self.login.wanted(request)})
        cookies.start(response, made, self.app.clock.now())
        cookies.forget(response, cookies.NEXT)
        cookies.forget(response, cookies.PASSKEY)
        return response

    async def _signed_in(self, request: Request, asked: Asked) -> tuple[Session, User]:
        self.login.require_own_form(request, asked)
        found = await self.login.current(request, asked)
        if found is None:
            raise NOT_SIGNED_IN()
        return found

    async def _change(self, request: Request, asked: Asked, verb: str, *fields: str) -> Response:
        _, user = await self._signed_in(request, asked)
        form = await body.form(request)
        await self._run(user, asked, verb, "--", *(form.get(field, "") for field in fields))
        return RedirectResponse("/passkeys", 303)

    async def _run(self, user: User, asked: Asked, *words: str) -> dict[str, Any]:
        call = Call(caller_of(user, Via.SESSION), ("passkey", *words), "dashboard", json=True,
                    request_id=asked.request_id)
        outcome = await run(self.app, call)
        if outcome.failure is not None:
            raise outcome.failure
        assert outcome.view is not None
        return cast(dict[str, Any], outcome.view.document())


def _handle(given: dict[str, Any]) -> bytes:
    try:
        return bytes.fromhex(given["handle"][:MAX_HANDLE])
    except (ValueError, TypeError, KeyError):
        raise NOT_OURS() from None


def _name(given: dict[str, Any]) -> str:
    name = given.get("name") or ""
    try:
        return passkey_name(name) if name else ""
    except (ValueError, AttributeError) as why:
        raise BAD_NAME(why=why) from None


def _options(text: str) -> Response:
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})


async def _json(request: Request) -> dict[str, Any]:
    try:
        given = json.loads(await body.read(request, MAX_ANSWER))
    except (ValueError, RecursionError):
        raise NOT_OURS() from None
    if not isinstance(given, dict) or not isinstance(given.get("credential"), dict):
        raise NOT_OURS()
    return given
