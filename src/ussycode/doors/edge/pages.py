"""The replies that the edge gives itself: a small page for browsers, JSON for programs."""
from __future__ import annotations

import html
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import quote

import msgspec


@dataclass(frozen=True)
class Local:
    """A reply made here. `location` redirects; `retry_after` is seconds."""

    status: int
    reason: str
    """Word for the log and the counters, never shown."""
    sentence: str
    hint: str = ""
    location: bytes = b""
    retry_after: int = 0
    challenge: bytes = b""
    """Value of WWW-Authenticate."""
    offer: tuple[str, str] = ("", "")
    """What the page offers to do, and the path where that is done."""

    def render(self, page: bool, extra: bytes, close: bool, to_head: bool) -> bytes:
        """The whole response. `extra` is header lines, each with CRLF."""
        kind, body = (b"text/html; charset=utf-8", self._page()) if page else (b"application/json", self._json())
        lines = [
            b"HTTP/1.1 %d %b" % (self.status, HTTPStatus(self.status).phrase.encode()),
            b"Content-Type: " + kind,
            b"Content-Length: %d" % len(body),
            b"Cache-Control: no-store",
            b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            b"X-Content-Type-Options: nosniff",
            b"Referrer-Policy: no-referrer",
        ]
        if self.location:
            lines.append(b"Location: " + self.location)
        if self.challenge:
            lines.append(b"WWW-Authenticate: " + self.challenge)
        if self.retry_after:
            lines.append(b"Retry-After: %d" % self.retry_after)
        if close:
            lines.append(b"Connection: close")
        lines.append(extra)
        return b"\r\n".join(lines) + b"\r\n" + (b"" if to_head else body)

    def _json(self) -> bytes:
        said = {"error": self.sentence} | ({"hint": self.hint} if self.hint else {})
        return msgspec.json.encode(said) + b"\n"

    def _page(self) -> bytes:
        hint = f"<p>{html.escape(self.hint)}</p>" if self.hint else ""
        text, path = self.offer
        offer = f'<p><a href="{path}">{text}</a></p>' if text else ""
        words = _PAGE.format(status=self.status, sentence=html.escape(self.sentence), hint=hint, offer=offer)
        return words.encode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{status}</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;
margin:18vh auto 0;padding:0 1rem}}
h1{{font-size:1rem;opacity:.7}}a{{display:inline-block;padding:.5rem 1rem;border:1px solid;border-radius:.5rem;
color:inherit}}@media(prefers-color-scheme:dark){{body{{background:#16161a;color:#eee}}}}</style></head>
<body><h1>{status}</h1><p>{sentence}</p>{hint}{offer}</body></html>
"""

NOT_FOUND = Local(
    404, "", "there is nothing here, or you may not see it", "check the address, or sign in as someone who may",
)
MAY_ASK = replace(NOT_FOUND, offer=("Ask for access", "/__ussycode/request"))
"""What somebody signed in sees where they may not go, whether or not there is anything."""
TOO_FAST = Local(
    429, "limit_requests", "too many requests from your address", "slow down, then try again", retry_after=1,
)
ACCOUNT_TOO_FAST = Local(
    429, "limit_account", "too many requests from your account", "slow down, then try again", retry_after=1,
)
TOO_MANY_OPEN = Local(
    429, "limit_connections", "too many connections from your address are open", "close some, then try again",
    retry_after=5,
)
ARRIVES_TOO_FAST = Local(
    429, "limit_handshakes", "too many new connections from your address", "keep them open and use them again",
    retry_after=1,
)
FULL = Local(503, "full", "the platform has as many connections as it serves", "try again soon", retry_after=5)
CONTROL_DOWN = Local(503, "control_down", "the platform is restarting", "try again in a few seconds", retry_after=5)
STARTING = Local(503, "no_snapshot", "the platform is starting", "try again in a few seconds", retry_after=2)
GRACE_OVER = Local(
    503, "grace_over", "private addresses are closed because the platform's control process cannot be reached",
    "try again later; public addresses stay open", retry_after=30,
)
STOPPED = Local(502, "not_running", "this machine is not running", "try again later", retry_after=30)
BUSY = Local(503, "too_many", "too many connections to this machine are open", "try again soon", retry_after=5)
APP_SILENT = Local(502, "", "the machine did not answer", "try again in a few seconds")
APP_BROKE = Local(502, "", "the app ended the connection, or spoke malformed HTTP", "look at the app's own log")
REQUEST_STALLED = Local(408, "request_stalled", "the request body did not arrive in time")
APP_SLOW = Local(504, "app_slow", "the app did not answer in time", "look at the app's own log")


def login(target: bytes, wants_page: bool, git: bool = False) -> Local:
    """The way to sign in on the same host; programs get 401. The same for hosts that do not exist.

    `git` is told that it may send the password of its URL. Browsers must not be: they would ask for one.
    """
    sentence = "sign in to see this address"
    if not wants_page:
        challenge = b'Basic realm="ussycode"' if git else b"Bearer"
        hint = "open it in a browser, or send a token of this machine"
        return Local(401, "not_signed_in", sentence, hint, challenge=challenge)
    back = quote(b"/" + target.lstrip(b"/"), safe="/")
    return Local(302, "not_signed_in", sentence, location=b"/__ussycode/login?redirect=" + back.encode())


def bad_token(code: str, sentence: str) -> Local:
    """A token was shown and is not good; never a redirect, and the same whether or not the VM exists.

    `code` says in log and counters which kind of bad it is.
    """
    return Local(401, code, sentence, "see the manual's page on tokens", challenge=b"Bearer error=invalid_token")


def stopped(name: str, phase: str, lobby: str) -> Local:
    """What the owner reads while the VM does not run; `lobby` is the command that leads there."""
    hint = f"start it with: {lobby} start {name}"
    return Local(502, "not_running", f"{name} is not running ({phase})", hint, retry_after=10)


def nothing_listens(name: str, port: int, owner: bool) -> Local:
    """The VM runs, the app does not."""
    hint = f"start a server in the VM that listens on port {port}" if owner else ""
    return Local(502, "app_refused", f"nothing listens on port {port} of {name}", hint)
