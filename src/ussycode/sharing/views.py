"""How sharing is shown."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ussycode.access.facts import PRIMARY, Level
from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.qr import drawn
from ussycode.cmdline.render import Style, table
from ussycode.config import Config
from ussycode.sharing import places
from ussycode.sharing.documents import (
    AddedDocument,
    LevelDocument,
    LinkAddedDocument,
    LinkDocument,
    MessageDocument,
    PersonDocument,
    ShareDocument,
    VisibilityDocument,
)
from ussycode.sharing.model import Link, Ports, Share
from ussycode.sharing.people import Added
from ussycode.vms.model import STOPPED, Mailbox

NO_TEAM = {"team_access": False, "team_ssh": False, "team_shelley": False}


@dataclass(frozen=True)
class VisibilityView:
    """Who may open one port without signing in. `status` is set after a change."""

    vm_name: str
    port: int
    public: bool
    url: str
    status: str = ""

    def text(self, style: Style) -> str:
        """Two lines."""
        word = "public" if self.public else "private"
        who = "anyone" if self.public else "you, and whom you share it with, after signing in,"
        return f"{self.vm_name} is {word}: {who} can open port {self.port}\n  {self.url}"

    def document(self) -> VisibilityDocument:
        """The document of `share port`, `set-public` and `set-private`."""
        made: VisibilityDocument = {
            "vm_name": self.vm_name, "port": self.port, "share": "public" if self.public else "private",
        }
        if self.status:
            made.update(cast(Any, {"status": self.status, **NO_TEAM}))
        return made


@dataclass(frozen=True)
class ShareView:
    """Everything about how a VM is shared."""

    config: Config
    vm_name: str
    ports: Ports
    shares: tuple[Share, ...]
    links: tuple[Link, ...]
    domains: tuple[str, ...] = ()
    """Those that are served."""
    qr: bool = False
    listening: tuple[int, ...] | None = None
    """Ports on which something listens in the VM, as it says; None when it says nothing."""
    mailbox: Mailbox = Mailbox.OFF

    @property
    def url(self) -> str:
        """Where the primary port is."""
        return self._url(self.ports.primary)

    def _url(self, port: int) -> str:
        return places.url(self.config, self.vm_name, port, self.ports.primary)

    def text(self, style: Style) -> str:
        """The primary port, other public ports, people and links."""
        primary = self.ports.primary
        parts = [VisibilityView(self.vm_name, primary, primary in self.ports.public, self.url).text(style)]
        parts += [f"  port {p} is public: {self._url(p)}" for p in sorted(self.ports.public - {primary})]
        parts += [f"  also at {d}" for d in self.domains]
        parts += [*self._heard(), *self._mail()]
        if self.shares:
            rows = [[s.name, _what(s), _status(s), _via(s), _day(s.expires)] for s in self.shares]
            parts += ["", table(["SHARED WITH", "WHAT", "STATUS", "BY", "ENDS"], rows, style)]
        if self.links:
            links = [[k.id, _port(k.port), _uses(k), _day(k.expires), k.label or "-"] for k in self.links]
            parts += ["", table(["LINK", "PORT", "USED", "ENDS", "LABEL"], links, style)]
        if self.qr:
            parts.append(drawn(self.url))
        return "\n".join(parts)

    def _heard(self) -> list[str]:
        """What listens in it, and what to do when it is not what is shown."""
        if self.listening is None:
            return []
        found, primary = ", ".join(map(str, self.listening)), self.ports.primary
        other = f"share port {self.vm_name} PORT shows another" if found else "127.0.0.1 is enough"
        silent = [] if primary in self.listening else [f"  nothing listens on port {primary} in it; {other}"]
        return [*silent, *([f"  in it listens: {found}"] if found else [])]

    def _mail(self) -> list[str]:
        if self.mailbox is Mailbox.ON:
            return [f"  takes mail for {places.mail_address(self.config, self.vm_name)}"]
        on = f"share receive-email {self.vm_name} on"
        return [f"  takes no mail any more: {STOPPED}; read or move them, then: {on}"] if self._stopped else []

    @property
    def _stopped(self) -> bool:
        return self.mailbox is Mailbox.FULL

    def document(self) -> ShareDocument:
        """The document of `share show`."""
        heard: dict[str, Any] = {} if self.listening is None else {"listening": list(self.listening)}
        heard |= {"email_stopped": STOPPED} if self._stopped else {}
        return cast(ShareDocument, {
            "vm_name": self.vm_name, "status": self.ports.visibility, "port": self.ports.primary, "url": self.url,
            "users": [person(s) for s in self.shares], "links": [link(k) for k in self.links], "teams": [], **NO_TEAM,
            "ports": [{"port": p, "share": "public", "url": self._url(p)} for p in sorted(self.ports.public)],
            "domains": list(self.domains), "receive_email": self.mailbox is Mailbox.ON,
            "email_address": places.mail_address(self.config, self.vm_name), **heard,
        })


def person(share: Share) -> PersonDocument:
    """One person as `share show` tells of them."""
    made: PersonDocument = {
        "email": share.told_email, "status": "pending" if share.pending else "active",
        "invited_at": rfc3339(share.created_at), "share_level": "root" if share.level is Level.SHELL else "web",
        "via": "link" if share.link else "invite",
    }
    if share.user:
        made["handle"] = share.handle
    return cast(PersonDocument, made | _bounds(share.port, share.expires))


def link(found: Link) -> LinkDocument:
    """One link as `share show` tells of it."""
    made: LinkDocument = {
        "token": found.id, "created_at": rfc3339(found.created_at), "use_count": found.use_count,
        "last_used_at": rfc3339(found.last_used_at) if found.last_used_at else None,
    }
    return cast(LinkDocument, made | _of_link(found))


def _of_link(found: Link) -> dict[str, object]:
    made: dict[str, object] = {"label": found.label} if found.label else {}
    made |= {"max_uses": found.max_uses} if found.max_uses else {}
    return made | _bounds(found.port, found.expires)


def _bounds(port: int, expires: float) -> dict[str, object]:
    made: dict[str, object] = {} if port == PRIMARY else {"port": port}
    return made | ({"expires_at": rfc3339(expires)} if expires else {})


@dataclass(frozen=True)
class AddedView:
    """A share that was made, changed, or there already. `hint` says what the sharer has to do themselves."""

    vm_name: str
    url: str
    added: Added
    root: bool
    hint: str
    qr: bool = False

    @property
    def message(self) -> str:
        """One sentence."""
        if not self.added.new:
            return f"Already shared with {self.added.who}"
        return "Invitation sent" if self.added.mailed else "Share created"

    def text(self, style: Style) -> str:
        """What they may do, where, and what is left to do."""
        share = self.added.share
        said = "already shared" if not self.added.new else "shared"
        what = "a shell and every port" if share.level is Level.SHELL else _port(share.port)
        ends = f" until {rfc3339(share.expires)}" if share.expires else ""
        parts = [f"{self.vm_name} is {said} with {printable(self.added.who)}: {what}{ends}", f"  {self.url}"]
        parts += [self.hint] if self.hint else []
        return "\n".join([*parts, drawn(self.url)] if self.qr else parts)

    def document(self) -> AddedDocument | LevelDocument:
        """The document of `share add`."""
        share = self.added.share
        if self.root:
            level = {"status": "updated", "vm_name": self.vm_name, "shared_with": self.added.who,
                     "share_level": share.level_word, "message": self.message}
            return cast(LevelDocument, level | _bounds(share.port, share.expires))
        made = {"status": "success", "vm_name": self.vm_name, "shared_with": self.added.who, "url": self.url,
                "message": self.message}
        return cast(AddedDocument, made | _bounds(share.port, share.expires))


@dataclass(frozen=True)
class RemovedView:
    """A share or a link that was taken back; `lowered_to` when only the shell was."""

    vm_name: str
    who: str
    said: str
    lowered: bool = False

    def text(self, style: Style) -> str:
        """One line."""
        return printable(self.said)

    def document(self) -> MessageDocument | LevelDocument:
        """The document of `share remove` and `remove-link`."""
        if self.lowered:
            return {"status": "updated", "vm_name": self.vm_name, "shared_with": self.who, "share_level": "web",
                    "message": self.said}
        return {"status": "success", "vm_name": self.vm_name, "message": self.said}


@dataclass(frozen=True)
class LinkView:
    """A new link; its token is shown this once."""

    vm_name: str
    token: str
    url: str
    link: Link
    qr: bool = False

    def text(self, style: Style) -> str:
        """The address, and how to take it back."""
        parts = [
            f"whoever opens this and signs in may open {_port(self.link.port)} of {self.vm_name}; it is shown once",
            f"  {self.url}", f"take it back with: share remove-link {self.vm_name} {self.link.id}",
        ]
        return "\n".join([*parts, drawn(self.url)] if self.qr else parts)

    def document(self) -> LinkAddedDocument:
        """The document of `share add-link`."""
        made = {"status": "success", "vm_name": self.vm_name, "token": self.token, "url": self.url, "id": self.link.id}
        return cast(LinkAddedDocument, made | _of_link(self.link))


def _what(share: Share) -> str:
    return "shell" if share.level is Level.SHELL else _port(share.port)


def _port(port: int) -> str:
    return "the primary port" if port == PRIMARY else f"port {port}"


def _status(share: Share) -> str:
    return "invited" if share.pending else "active"


def _via(share: Share) -> str:
    return "link" if share.link else "invitation"


def _uses(found: Link) -> str:
    return f"{found.use_count} of {found.max_uses}" if found.max_uses else str(found.use_count)


def _day(at: float) -> str:
    return rfc3339(at)[:16].replace("T", " ") if at else "-"
