"""HTML pages from templates, the files they use, and the headers every answer carries."""
from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import Response

from ussycode.config import Config

HERE = Path(__file__).parent
STATIC = "/__ussycode/static/"
"""Where the pages' own files are, on the domain and on every VM host, so that no app of a VM is asked for them."""
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Pages:
    """Renders templates with autoescape. Everything is read once, at the start."""

    def __init__(self, config: Config) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, auto_reload=False,
            autoescape=select_autoescape(default=True, default_for_string=True),
        )
        self._environment.globals.update(
            static=STATIC, domain=config.domain, home=config.host_url(config.domain), ssh=config.ssh_command(),
        )
        self._files = {p.name: p.read_bytes() for p in sorted((HERE / "static").iterdir())}

    def page(self, template: str, status: int = 200, **values: object) -> Response:
        """A rendered page that nobody keeps."""
        text = self._environment.get_template(template).render(values)
        return Response(text, status, {"Cache-Control": "no-store"}, "text/html")

    def problem(self, status: int, sentence: str, hint: str = "") -> Response:
        """A page that says what went wrong."""
        phrase = HTTPStatus(status).phrase
        return self.page("problem.html", status, code=status, phrase=phrase, sentence=sentence, hint=hint)

    def static(self, name: str, request: Request) -> Response | None:
        """One of the pages' own files; None when there is none of that name."""
        content = self._files.get(name)
        if content is None:
            return None
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Cache-Control": "public, max-age=300"}
        if request.headers.get("if-none-match") == tag:
            return Response(None, 304, headers)
        return Response(content, 200, headers, KINDS[Path(name).suffix])


def security_headers(config: Config) -> list[tuple[bytes, bytes]]:
    """Headers of every answer. Forms may lead to VM hosts, because a sign-in ends there."""
    vms = config.host_url("*." + config.domain)[:-1]
    policy = (
        f"default-src 'self'; form-action 'self' {vms}; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"), (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        # Not `no-referrer`: with it browsers hide the origin of our own forms.
        (b"referrer-policy", b"same-origin"),
    ]
