"""Our cookies: bound to one host by their `__Host-` prefix, never readable by scripts."""
from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ussycode.identity.sessions import SignIn

SESSION = "__Host-ussycode"
NEXT = "__Host-ussycode-next"
"""Where a browser wanted to go before it had to sign in."""
STATE = "__Host-ussycode-state"
"""Ties a hand-off to the browser that began it, so that nobody is signed in as somebody else by a link."""
PASSKEY = "__Host-ussycode-passkey"
"""Ties the challenge that a passkey signs to the browser that asked for it."""
PENDING_SECONDS = 900
"""Life of those that belong to an unfinished sign-in."""


def session(request: Request) -> str:
    """The session cookie's value; empty when there is none."""
    return request.cookies.get(SESSION, "")


def start(response: Response, made: SignIn, now: float) -> None:
    """Keep a fresh session in the browser."""
    _set(response, SESSION, made.cookie, int(made.expires - now))


def remember(response: Response, name: str, value: str) -> None:
    """Keep a note for as long as a sign-in may take."""
    _set(response, name, value, PENDING_SECONDS)


def forget(response: Response, name: str) -> None:
    """Drop a cookie of ours."""
    _set(response, name, "", 0)


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")
