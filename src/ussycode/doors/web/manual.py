"""The manual over HTTP: Markdown for people and agents, an index of it, and a skill that teaches the platform."""
from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ussycode.catalog import TREE, declined, manual
from ussycode.cmdline.parse import usage
from ussycode.config import Config
from ussycode.doors.web.asked import Asked
from ussycode.doors.web.routes import NO_PAGE

MARKDOWN = "text/markdown; charset=utf-8"
_HEADERS = {"Cache-Control": "public, max-age=300"}
_LLMS = """# ussycode

> Persistent Linux VMs with a shell, an HTTPS address behind a login, and one command line as the whole API.

## Manual

{pages}
## For agents

- [Skill]({home}skill.md)
- [Everything in one file]({home}docs/all.md)
"""


class ManualPages:
    """Answers below /docs, /llms.txt and /skill.md. `home` is the base address with its slash."""

    def __init__(self, home: str, config: Config) -> None:
        self._home = home
        self._ssh = config.ssh_command()

    async def index(self, request: Request, asked: Asked) -> Response:
        """The list of pages."""
        return _markdown(f"# Manual\n\n{manual.index(self._home)}")

    async def page(self, request: Request, asked: Asked, name: str) -> Response:
        """`/docs/SLUG`, `/docs/SLUG.md`, `/docs/all.md`, or a file that a page links. Raises NO_PAGE."""
        if name in manual.samples():
            return _code(manual.samples()[name])
        slug = name.removesuffix(".md")
        if slug == "all":
            return _markdown(manual.whole())
        found = manual.page(slug)
        if found is None:
            raise NO_PAGE(home=self._home + "docs")
        return _markdown(found.text)

    async def sample(self, request: Request, asked: Asked, name: str) -> Response:
        """`/docs/login/FILE`: code that the page on the login links. Raises NO_PAGE."""
        found = manual.samples().get(f"login/{name}")
        if found is None:
            raise NO_PAGE(home=self._home + "docs")
        return _code(found)

    async def llms(self, request: Request, asked: Asked) -> Response:
        """What an agent reads first: what this is, and where the rest stands."""
        text = _LLMS.format(pages=manual.index(self._home), home=self._home)
        return Response(text, headers=_HEADERS, media_type="text/plain; charset=utf-8")

    async def whole(self, request: Request, asked: Asked) -> Response:
        """Every page, one after the other."""
        return Response(manual.whole(), headers=_HEADERS, media_type="text/plain; charset=utf-8")

    async def skill(self, request: Request, asked: Asked) -> Response:
        """A SKILL.md: how an agent uses this very platform."""
        return _markdown(skill(self._home, self._ssh))


def skill(home: str, ssh: str) -> str:
    """The skill's text, its list of commands read off the declarations."""
    commands = "\n".join(f"- `{usage(c)}`: {c.summary}" for c in TREE.commands if c not in declined.ALL)
    return f"""---
name: ussycode
description: Make and use persistent Linux VMs with HTTPS addresses on {home}
---

# Using ussycode

Every command below works as `{ssh} COMMAND --json` with a registered SSH key, as `POST {home}exec` with the command
line as body and `Authorization: Bearer TOKEN`, and as a tool of the MCP endpoint `{home}mcp` with the same token.
One JSON document comes back, and nothing asks a question. A failure is `{{"error": "..."}}` with a status; send
`Accept: application/vnd.ussycode+json` for `code`, `hint` and `request_id` too (over SSH they always come).
`COMMAND --help` answers with arguments, examples and the JSON Schema of the reply, and does nothing else.

1. Make a machine: `new --name demo`. It answers when the command returns.
2. Run things: `ssh demo -- uname -a`. Over HTTP, with `Accept: application/x-ndjson`, output streams as JSON lines.
3. Carry files: scp, sftp and rsync to `demo@HOST`, or `ssh demo -- cat FILE`.
4. Serve on the VM's port (see `proxy_port`) and open its `https_url`; it is private until `share set-public demo`.
5. When something is odd: `why demo` says what happened and what to do.
6. Remove it: `rm demo`. It can be brought back for a week: `trash restore demo`.

A token is made with `ssh-key generate-api-key --cmds new,ls,ssh,rm`; it runs what it lists and nothing else.

## Commands

{commands}
"""


def _code(text: str) -> Response:
    return Response(text, headers=_HEADERS, media_type="text/plain; charset=utf-8")


def _markdown(text: str) -> Response:
    return Response(text, headers=_HEADERS, media_type=MARKDOWN)
