"""Signing in with an e-mail address: a form, a mail with a code and a link, a session."""
from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from ussycode.base.errors import Failure
from ussycode.doors.web import body
from ussycode.doors.web.asked import Asked, local_path, serves_vm
from ussycode.doors.web.login import MAX_CODE, Login, goal
from ussycode.doors.web.pages import Pages
from ussycode.identity import emails
from ussycode.ports import App


@dataclass(frozen=True)
class ByMail:
    """Pages under `/login/mail` and `/email` of the base domain."""

    app: App
    pages: Pages
    login: Login

    async def begin(self, request: Request, asked: Asked) -> Response:
        """`POST /login/mail`: mails a code when the address may sign in; the page is the same when it may not."""
        self.login.require_own_form(request, asked)
        form = await body.form(request)
        host = form.get("host", "")
        host = host if await serves_vm(self.app, host) else ""
        where = await goal(self.app, host, form.get("path", "/")) if host else local_path(form.get("next", "/"))
        pending = await emails.begin_sign_in(self.app, form.get("email", ""), where, host)
        return self._code_page(pending.id, pending.address, host)

    async def finish(self, request: Request, asked: Asked) -> Response:
        """`POST /login/code`: the code buys a session."""
        self.login.require_own_form(request, asked)
        form = await body.form(request)
        agent = request.headers.get("user-agent", "")
        try:
            made, where = await emails.finish_sign_in(self.app, form.get("id", ""), form.get("code", "")[:20], agent)
        except Failure as failure:
            if failure.error is not emails.CODE_WRONG:
                raise
            shown = form.get("address", "")[:254]
            return self._code_page(form.get("id", "")[:40], shown, "", failure.sentence, failure.kind.status)
        return self.login.signed_in(made, where or "/")

    async def confirm(self, request: Request, asked: Asked, token: str) -> Response:
        """`GET /login/mail/TOKEN`: names the address; link scanners use nothing up."""
        address = await emails.peek_sign_in(self.app, token[:MAX_CODE])
        return self.pages.page("confirm.html", handle=address, action=f"/login/mail/{token}")

    async def consume(self, request: Request, asked: Asked, token: str) -> Response:
        """`POST /login/mail/TOKEN`: signs this browser in."""
        self.login.require_own_form(request, asked)
        agent = request.headers.get("user-agent", "")
        made, where = await emails.sign_in_by_link(self.app, token[:MAX_CODE], agent)
        return self.login.signed_in(made, where or "/")

    async def ask_verify(self, request: Request, asked: Asked, token: str) -> Response:
        """`GET /email/TOKEN`: a button, because scanners open links too."""
        address = await emails.peek_sign_in(self.app, token[:MAX_CODE])
        return self.pages.page("verify.html", address=address, action=f"/email/{token}", done=False)

    async def verify(self, request: Request, asked: Asked, token: str) -> Response:
        """`POST /email/TOKEN`: the address is proven."""
        self.login.require_own_form(request, asked)
        address = await emails.verify_link(self.app, token[:MAX_CODE])
        return self.pages.page("verify.html", address=address, action="", done=True)

    def _code_page(self, name: str, address: str, host: str, wrong: str = "", status: int = 200) -> Response:
        return self.pages.page("code.html", status, id=name, address=address, host=host, wrong=wrong,
                               outbox=not self.app.config.smtp_host)
