"""Everything that can be asked of the platform, as one closed list."""
from __future__ import annotations

import enum


class Action(enum.StrEnum):
    """`noun.verb`. Commands name the one they need; the edge and SSH routes use the VM ones."""

    NOTHING = "nothing"
    """Harmless for anyone: help, exit."""
    ACCOUNT_READ = "account.read"
    ACCOUNT_CHANGE = "account.change"
    INVITE = "account.invite"
    """Let somebody make an account; admins only."""
    SESSION_CREATE = "session.create"
    TOKEN_CREATE = "token.create"  # noqa: S105 - a word, not a secret
    VM_LIST = "vm.list"
    VM_CREATE = "vm.create"
    VM_DELETE_TRASH = "vm.delete_trash"
    VM_READ = "vm.read"
    VM_CHANGE = "vm.change"
    VM_DELETE = "vm.delete"
    VM_COPY = "vm.copy"
    VM_TAG = "vm.tag"
    VM_SHARE = "vm.share"
    VM_SHELL = "vm.shell"
    VM_TOKEN = "vm.token"  # noqa: S105 - a word, not a secret
    """Make or revoke a token of one's own for the VM's HTTPS; what it opens is decided when it is shown."""
    VM_OPEN = "vm.open"
    """Reach a port of the VM over HTTPS."""
    VM_MAIL = "vm.mail"
    """Send the VM a mail. Nobody is known by one: who sends it plays no part."""
