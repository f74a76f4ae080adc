"""The web app of the control process: finds the place, the route and the answer; the outermost frame of HTTP."""
from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ussycode.base.errors import INTERNAL, Failure
from ussycode.doors.web.asked import Asked, asked, wants_page
from ussycode.doors.web.asking import Answering, Asking
from ussycode.doors.web.bymail import ByMail
from ussycode.doors.web.dashboard import Dashboard
from ussycode.doors.web.exec import RUN_SECONDS, ExecDoor, json_response, refusal
from ussycode.doors.web.login import Login
from ussycode.doors.web.manual import ManualPages
from ussycode.doors.web.mcp import McpDoor
from ussycode.doors.web.pace import SignInPace
from ussycode.doors.web.pages import STATIC, Pages, security_headers
from ussycode.doors.web.passkeys import Passkeys
from ussycode.doors.web.redeeming import Redeeming
from ussycode.doors.web.routes import NO_PAGE, NotAllowed, Routes
from ussycode.doors.web.trailers import TrailerProtocol
from ussycode.doors.web.vmhost import VmHost
from ussycode.identity import signing
from ussycode.ports import App
from ussycode.sharing.places import SHARE
from ussycode.tokens.verify import TokenVerifier

KEEP_ALIVE_SECONDS = 90
"""Longer than the edge keeps idle connections, so that it is the edge that closes them."""
GRACE_SECONDS = 5
"""Time running answers have when the process ends."""
KEYS_SECONDS = 3600
"""How long an app may keep the keys that assertions are signed with; a new one is published long before its use."""
NO_HOST = "no such host here"


class Web:
    """The ASGI application."""

    def __init__(self, app: App, tokens: TokenVerifier, exec_seconds: float) -> None:
        self._app = app
        self._pages = Pages(app.config)
        self._pace = SignInPace(app)
        self._exec = ExecDoor(app, tokens, exec_seconds)
        self._mcp = McpDoor(self._exec)
        self._home = app.config.host_url(app.config.domain)
        self._headers = security_headers(app.config)
        login = Login(app, self._pages)
        self._base = self._base_routes(login, Dashboard(app, self._pages, login))
        self._vm = self._vm_routes(login, VmHost(app))

    def _base_routes(self, login: Login, dashboard: Dashboard) -> Routes:
        manual, mail = ManualPages(self._home, self._app.config), ByMail(self._app, self._pages, login)
        passkeys, answering = Passkeys(self._app, self._pages, login), Answering(self._app, self._pages, login)
        return Routes(
            {
                "/": {"GET": dashboard.home}, "/dashboard/vms": {"GET": dashboard.rows},
                "/login": {"GET": login.explain}, "/login/mail": {"POST": mail.begin},
                "/login/code": {"POST": mail.finish}, "/login/to": {"GET": login.hand_off},
                "/login/passkey/begin": {"POST": passkeys.begin_sign_in},
                "/login/passkey/finish": {"POST": passkeys.finish_sign_in},
                "/passkeys": {"GET": passkeys.page}, "/passkeys/begin": {"POST": passkeys.begin},
                "/passkeys/finish": {"POST": passkeys.finish}, "/passkeys/rename": {"POST": passkeys.rename},
                "/passkeys/remove": {"POST": passkeys.remove},
                "/requests": {"GET": answering.page}, "/requests/approve": {"POST": answering.approve},
                "/requests/decline": {"POST": answering.decline},
                "/logout": {"GET": login.ask_leave, "POST": login.leave}, "/healthz": {"GET": self._healthy},
                "/docs": {"GET": manual.index}, "/docs.md": {"GET": manual.index}, "/llms.txt": {"GET": manual.llms},
                "/llms-full.txt": {"GET": manual.whole},
                "/.well-known/jwks.json": {"GET": self._keys},
                "/skill.md": {"GET": manual.skill},
            },
            {
                "/login/": {"GET": login.confirm, "POST": login.consume}, STATIC: {"GET": self._static},
                "/login/mail/": {"GET": mail.confirm, "POST": mail.consume},
                "/email/": {"GET": mail.ask_verify, "POST": mail.verify}, "/docs/": {"GET": manual.page},
                "/docs/login/": {"GET": manual.sample}, "/import/": {"PUT": self._exec.upload},
            },
        )

    def _vm_routes(self, login: Login, vm: VmHost) -> Routes:
        leave = {"GET": login.ask_leave, "POST": login.leave}
        shared, asking = Redeeming(self._app, self._pages, login), Asking(self._app, self._pages, login)
        return Routes(
            {
                "/__ussycode/login": {"GET": vm.begin}, "/__exe.dev/login": {"GET": vm.begin},
                "/__ussycode/session": {"GET": vm.finish}, "/__ussycode/jwks.json": {"GET": self._keys},
                "/__ussycode/logout": leave, "/__exe.dev/logout": leave,
                "/__ussycode/request": {"GET": asking.offer, "POST": asking.ask},
            },
            {STATIC: {"GET": self._static}, SHARE: {"GET": shared.ask, "POST": shared.accept}},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        place = await asked(self._app, scope)
        extra = [*self._headers, (b"x-request-id", (place.request_id if place else "").encode())]

        async def send_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        request = Request(scope, receive)
        response = self._no_host(request) if place is None else await self._respond(request, place)
        try:
            await response(scope, receive, send_ours)
        except Failure as failure:  # a stream that ended before its first byte
            await self._failed(request, failure, place)(scope, receive, send_ours)

    async def _respond(self, request: Request, place: Asked) -> Response:
        try:
            if request.scope["path"] == "/exec" and not place.on_vm:
                return await self._exec.answer(request, place)
            if request.scope["path"] == "/mcp" and not place.on_vm:
                return await self._mcp.answer(request, place)
            if not place.on_vm:
                self._pace.require(request)
            return await (self._vm if place.on_vm else self._base).answer(request, place, self._home)
        except NotAllowed as refused:
            made = self._said(request, 405, "this address does not do that", "it knows " + refused.allow)
            made.headers["Allow"] = refused.allow
            return made
        except Failure as failure:
            return self._failed(request, failure, place)
        except Exception as error:  # the outermost frame of every request
            self._app.telemetry.log.exception("request failed", request_id=place.request_id)
            return self._failed(request, INTERNAL(request_id=place.request_id).because(error), place)

    def _failed(self, request: Request, failure: Failure, place: Asked | None) -> Response:
        if not wants_page(request):
            return refusal(failure, place.request_id if place else "")
        made = self._pages.problem(failure.kind.status, failure.sentence, failure.hint)
        if failure.retry_after is not None:
            made.headers["Retry-After"] = str(math.ceil(failure.retry_after))
        return made

    def _no_host(self, request: Request) -> Response:
        return self._said(request, 404, NO_HOST, "")

    def _said(self, request: Request, status: int, sentence: str, hint: str) -> Response:
        if wants_page(request):
            return self._pages.problem(status, sentence, hint)
        return json_response({"error": sentence}, status)

    async def _static(self, request: Request, place: Asked, name: str) -> Response:
        found = self._pages.static(name, request)
        if found is None:
            raise NO_PAGE(home=self._home)
        return found

    async def _healthy(self, request: Request, place: Asked) -> Response:
        return json_response({"status": "ok"})

    async def _keys(self, request: Request, place: Asked) -> Response:
        response = json_response(await signing.key_set(self._app))
        response.headers["Cache-Control"] = f"public, max-age={KEYS_SECONDS}"
        return response


def make_asgi(app: App, tokens: TokenVerifier, exec_seconds: float = RUN_SECONDS) -> ASGIApp:
    """The web app. `tokens.heard` must be registered with the database."""
    return Web(app, tokens, exec_seconds)


class Server(uvicorn.Server):
    """uvicorn inside a process that has its own way with signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


async def serve_web(
    app: App, tokens: TokenVerifier, listening: socket.socket, exec_seconds: float = RUN_SECONDS
) -> None:
    """Serve on a listening unix or TCP socket until cancelled; running answers get GRACE_SECONDS to end."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    settings = uvicorn.Config(
        make_asgi(app, tokens, exec_seconds), http=TrailerProtocol, ws="none", lifespan="off",
        log_config=None, access_log=False, proxy_headers=False, server_header=False, date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(settings)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
