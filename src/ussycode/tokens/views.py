"""What commands about keys and tokens answer."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from ussycode.base.clock import rfc3339
from ussycode.cmdline.render import Style, table
from ussycode.identity.commands import KeysView
from ussycode.identity.documents import KeyDocument
from ussycode.tokens import signed
from ussycode.tokens.model import Handle


class TokenDocument(TypedDict):
    """A new token; without `expires_at` it does not."""

    label: str
    token: str
    namespace: str
    fingerprint: str
    expires_at: NotRequired[str]


class HandleDocument(TypedDict):
    """A token that was made earlier; it is not shown again. `key` is the fingerprint it ends with."""

    label: str
    fingerprint: str
    created_at: str
    cmds: list[str]
    key: str
    vm_name: NotRequired[str]
    tag: NotRequired[str]
    expires_at: NotRequired[str]
    last_used_at: NotRequired[str]


class AccessDocument(TypedDict):
    """`ssh-key list`."""

    ssh_keys: list[KeyDocument]
    tokens: list[HandleDocument]
    revoked_tokens: int


class RevokedDocument(TypedDict):
    """`ssh-key revoke-token`, and `ssh-key remove` of a token."""

    status: Literal["revoked"]
    token: str


@dataclass(frozen=True)
class TokenView:
    """A token that was just made: the only time it is shown."""

    token: str
    handle: Handle
    namespace: str

    def text(self, style: Style) -> str:
        """The token alone on the first line, so that it can be cut out."""
        expires = _expires(self.handle)
        ends = f"until {expires}" if expires else "until it is revoked"
        what = f"{self.handle.label} ({self.handle.fingerprint}) for {self.namespace}, {ends}"
        return f"{self.token}\n{what}; it is not shown again"

    def document(self) -> TokenDocument:
        """The document of `ssh-key generate-api-key`."""
        made: TokenDocument = {
            "label": self.handle.label, "token": self.token, "namespace": self.namespace,
            "fingerprint": self.handle.fingerprint,
        }
        if expires := _expires(self.handle):
            made["expires_at"] = expires
        return made


@dataclass(frozen=True)
class AccessView:
    """Everything that lets the caller in: SSH keys and tokens."""

    keys: KeysView
    tokens: tuple[Handle, ...]
    vms: dict[str, str]
    """Names of VMs by id."""
    revoked: int

    def text(self, style: Style) -> str:
        """A table of keys, and one of tokens when there are any."""
        rows = [
            [k.name, k.fingerprint, k.tag or "-", "now" if k.fingerprint == self.keys.current else _day(k.last_used)]
            for k in self.keys.keys
        ]
        parts = [table(["NAME", "FINGERPRINT", "TAG", "LAST USED"], rows, style)]
        if self.tokens:
            listed = [[t.label, t.fingerprint, self._opens(t), _expires(t)[:10] or "never", _day(t.last_used)]
                      for t in self.tokens]
            parts.append(table(["TOKEN", "FINGERPRINT", "OPENS", "EXPIRES", "LAST USED"], listed, style))
        if self.revoked:
            parts.append(f"{self.revoked} signed token{'s' if self.revoked > 1 else ''} revoked before the end")
        return "\n\n".join(parts)

    def document(self) -> AccessDocument:
        """The document of `ssh-key list`."""
        return {
            "ssh_keys": self.keys.items(), "tokens": [self._token(t) for t in self.tokens],
            "revoked_tokens": self.revoked,
        }

    def _opens(self, handle: Handle) -> str:
        return self.vms.get(handle.vm, "a VM that is gone") if handle.vm else "the API"

    def _token(self, handle: Handle) -> HandleDocument:
        item: HandleDocument = {
            "label": handle.label, "fingerprint": handle.fingerprint, "created_at": rfc3339(handle.created_at),
            "cmds": sorted(signed.payload(handle.payload.encode()).commands), "key": handle.key,
        }
        if name := self.vms.get(handle.vm, "") if handle.vm else "":
            item["vm_name"] = name
        if handle.tag:
            item["tag"] = handle.tag
        if expires := _expires(handle):
            item["expires_at"] = expires
        if handle.last_used:
            item["last_used_at"] = rfc3339(handle.last_used)
        return item


@dataclass(frozen=True)
class RevokedView:
    """A token that ended."""

    what: str

    def text(self, style: Style) -> str:
        """One line."""
        return f"revoked {self.what}"

    def document(self) -> RevokedDocument:
        """The document of a revocation."""
        return {"status": "revoked", "token": self.what}


def _expires(handle: Handle) -> str:
    exp = signed.payload(handle.payload.encode()).exp
    return rfc3339(exp) if exp is not None else ""


def _day(at: float) -> str:
    return rfc3339(at)[:10] if at else "never"
