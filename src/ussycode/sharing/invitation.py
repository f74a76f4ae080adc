"""The mail that tells somebody of what was shared with them."""
from __future__ import annotations

from ussycode.access.facts import Caller, Level, VmFacts
from ussycode.base.clock import rfc3339
from ussycode.base.db import Tx
from ussycode.mail import store as mail
from ussycode.ports import App
from ussycode.sharing import places
from ussycode.sharing.model import Share, effective


def post(tx: Tx, app: App, sharer: Caller, vm: VmFacts, share: Share, to: str, message: str) -> None:
    """Spool it with the transaction that shares. `message` is one clean line of the owner's, or empty."""
    who = f"{sharer.handle} <{sharer.email}>" if sharer.email else sharer.handle
    mail.post(tx, to, f"{sharer.handle} shares {vm.name} with you", _body(app, who, vm, share, to, message))


def _body(app: App, who: str, vm: VmFacts, share: Share, to: str, message: str) -> str:
    url = places.url(app.config, vm.name, effective(share.port, vm.primary_port), vm.primary_port)
    parts = [f"{who} shares {vm.name} at {app.config.domain} with you."]
    if message:
        parts.append(f"    {message}")
    parts.append(f"Open it here:\n\n{url}")
    if share.pending:
        parts.append(f"You are asked to sign in first; do it with this address, {to}.")
    if share.level is Level.SHELL:
        command = app.config.ssh_command(vm.name)
        parts.append(f"You may also open a shell, with an SSH key of your account:\n\n{command}")
    if share.expires:
        parts.append(f"This ends on {rfc3339(share.expires)}.")
    return "\n\n".join(parts) + "\n"
