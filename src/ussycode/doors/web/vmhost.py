"""Signing in on a VM's host, under `/__ussycode/` and exe.dev's spelling of it."""
from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ussycode.base import secrets
from ussycode.doors.web import cookies
from ussycode.doors.web.asked import Asked, local_path
from ussycode.doors.web.login import MAX_CODE
from ussycode.identity import links
from ussycode.ports import App


@dataclass(frozen=True)
class VmHost:
    """The two ends of a hand-off that are on the VM's host. The VM itself is never asked, nor need it exist."""

    app: App

    async def begin(self, request: Request, asked: Asked) -> Response:
        """`GET login?redirect=/path`: to the base domain, with a note that ties the way back to this browser."""
        state = request.cookies.get(cookies.STATE, "")
        if not 20 <= len(state) <= 100:
            state = secrets.token(16)
        path = local_path(request.query_params.get("redirect", "/"))
        query = urlencode({"host": asked.address, "path": path, "state": secrets.digest(state)})
        response = RedirectResponse(f"{self.app.config.host_url(self.app.config.domain)}login/to?{query}", 302)
        cookies.remember(response, cookies.STATE, state)
        return response

    async def finish(self, request: Request, asked: Asked) -> Response:
        """`GET session?code=…`: the sign-in arrives; without this browser's own note it begins anew."""
        path = local_path(request.query_params.get("redirect", "/"))
        state, given = request.cookies.get(cookies.STATE, ""), request.query_params.get("state", "")
        if not state or not hmac.compare_digest(secrets.digest(state).encode(), given.encode()):
            return RedirectResponse("/__ussycode/login?" + urlencode({"redirect": path}), 303)
        made = await links.redeem(self.app, request.query_params.get("code", "")[:MAX_CODE], asked.host,
                                  request.headers.get("user-agent", ""))
        response = RedirectResponse(path, 303)
        cookies.start(response, made, self.app.clock.now())
        cookies.forget(response, cookies.STATE)
        return response
