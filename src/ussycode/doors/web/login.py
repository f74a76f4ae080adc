"""Signing in on the base domain: the page that explains it, the one-time link, the hand-off to VM hosts."""
from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ussycode.base.errors import ErrorCode, Kind
from ussycode.doors.web import cookies
from ussycode.doors.web.asked import Asked, bare, is_vm_host, local_path, same_origin, serves_vm
from ussycode.doors.web.pages import Pages
from ussycode.identity import links
from ussycode.identity import ops as identity
from ussycode.identity.model import Session, User
from ussycode.identity.sessions import SignIn
from ussycode.ports import App

CROSS_SITE = ErrorCode(
    "http.cross_site", Kind.FORBIDDEN, "this came from another site and was not done",
    hint="use the form on our own page",
)
MAX_CODE = 100
"""Characters of a sign-in code."""
MAX_STATE = 100


@dataclass(frozen=True)
class Login:
    """Pages under `/login` and `/logout` of the base domain."""

    app: App
    pages: Pages

    async def current(self, request: Request, asked: Asked) -> tuple[Session, User] | None:
        """Who is signed in on this host."""
        cookie = cookies.session(request)
        return await identity.session_of(self.app, cookie, asked.host) if cookie else None

    async def explain(self, request: Request, asked: Asked) -> Response:
        """`GET /login`: the command that makes a link; goes on at once for who is signed in.

        The query says where to: `host` and `path`, or `next` for a page of the base domain.
        """
        host = request.query_params.get("host", "")
        shown = host if await serves_vm(self.app, host) else ""
        path, after = _path(request, "path"), _path(request, "next")
        if await self.current(request, asked) is not None:
            return RedirectResponse(await goal(self.app, shown, path) if shown else after, 303)
        made = self.pages.page("login.html", host=shown, path=path, next=after)
        if shown:
            cookies.remember(made, cookies.NEXT, urlencode({"host": shown, "path": path}))
        elif after != "/":
            cookies.remember(made, cookies.NEXT, urlencode({"next": after}))
        return made

    async def confirm(self, request: Request, asked: Asked, code: str) -> Response:
        """`GET /login/CODE`: names the account; link previews and scanners use nothing up."""
        user = await links.peek_link(self.app, code[:MAX_CODE])
        query = urlencode({k: v for k, v in request.query_params.items() if k in ("host", "path", "next")})
        action = f"/login/{code}" + (f"?{query}" if query else "")
        return self.pages.page("confirm.html", handle=user.handle, action=action)

    async def consume(self, request: Request, asked: Asked, code: str) -> Response:
        """`POST /login/CODE`: signs this browser in, then goes where it wanted to go."""
        self.require_own_form(request, asked)
        made = await links.redeem(self.app, code[:MAX_CODE], asked.host, request.headers.get("user-agent", ""))
        return self.signed_in(made, await self.wanted(request))

    def signed_in(self, made: SignIn, where: str) -> Response:
        """Keeps a fresh session and sends the browser on, by a page of its own when that is an owner's domain.

        Browsers hold a form to the hosts that our policy names, redirects included, and owners' domains are not in it.
        """
        host = urlsplit(where).hostname or ""
        ours = not host or host == self.app.config.domain or is_vm_host(self.app.config, host)
        response = RedirectResponse(where, 303) if ours else self.pages.page("onward.html", host=host, where=where)
        cookies.start(response, made, self.app.clock.now())
        cookies.forget(response, cookies.NEXT)
        return response

    async def hand_off(self, request: Request, asked: Asked) -> Response:
        """`GET /login/to`: carries the sign-in to a VM host, whether or not such a VM exists."""
        host, state = request.query_params.get("host", ""), request.query_params.get("state", "")
        path = _path(request, "path")
        if not await serves_vm(self.app, host):
            return RedirectResponse("/", 303)
        found = await self.current(request, asked)
        if found is None:
            return RedirectResponse("/login?" + urlencode({"host": host, "path": path}), 303)
        if not state or len(state) > MAX_STATE:
            return RedirectResponse(await goal(self.app, host, path), 303)
        code = await links.hand_off(self.app, found[0], bare(self.app.config, host))
        query = urlencode({"code": code, "state": state, "redirect": path})
        return RedirectResponse(f"{self.app.config.host_url(host)}__ussycode/session?{query}", 303)

    async def leave(self, request: Request, asked: Asked) -> Response:
        """`POST /logout`: ends this sign-in here and on every VM host it was carried to."""
        self.require_own_form(request, asked)
        if cookie := cookies.session(request):
            await identity.sign_out(self.app, cookie)
        response = self.pages.page("signed_out.html") if asked.on_vm else RedirectResponse("/", 303)
        cookies.forget(response, cookies.SESSION)
        return response

    async def ask_leave(self, request: Request, asked: Asked) -> Response:
        """`GET` on a sign-out address: a button, because a link must not sign anybody out."""
        return self.pages.page("leave.html", action=request.url.path)

    def require_own_form(self, request: Request, asked: Asked) -> None:
        """Raises CROSS_SITE when a browser says that another site sent this."""
        if not same_origin(self.app.config, request, asked.address):
            raise CROSS_SITE()

    async def wanted(self, request: Request) -> str:
        """Where this browser was going when it had to sign in."""
        query = request.query_params
        if await serves_vm(self.app, query.get("host", "")):
            return await goal(self.app, query["host"], _path(request, "path"))
        if "next" in query:
            return local_path(query["next"])
        kept = parse_qs(request.cookies.get(cookies.NEXT, "")[:4096])
        if "next" in kept:
            return local_path(kept["next"][0])
        return await goal(self.app, kept.get("host", [""])[0], kept.get("path", ["/"])[0])


def _path(request: Request, name: str) -> str:
    return local_path(request.query_params.get(name, "/"))


async def goal(app: App, host: str, path: str) -> str:
    """Where a signed-in browser goes that wanted `path` of the VM host `host`; the dashboard for any other host."""
    if not await serves_vm(app, host):
        return "/"
    return f"{app.config.host_url(host)}__ussycode/login?{urlencode({'redirect': local_path(path)})}"
