"""Whether a VM takes mail: turned on and off by its owner, and off by itself when too much lies unread."""
from __future__ import annotations

from ussycode.access.decide import Permit
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import store as identity
from ussycode.mail import store as mail
from ussycode.ports import App
from ussycode.vms import ops as machines
from ussycode.vms import store as vms
from ussycode.vms.model import MAX_UNREAD, Mailbox, Vm

NO_DOOR = ErrorCode(
    "mail.no_door", Kind.UNAVAILABLE, "this platform takes no mail", hint="its operator has to set mail_port",
)


async def read(app: App, permit: Permit) -> Mailbox:
    """Whether the VM takes mail."""
    return (await app.db.read(lambda tx: machines.of(tx, permit))).mailbox


async def turn(app: App, permit: Permit, on: bool) -> Mailbox:
    """Turn it on or off; in force before this returns. Mail that is there stays. Raises NO_DOOR."""
    if on and not app.config.mail_port:
        raise NO_DOOR()

    def change(tx: Tx) -> Mailbox:
        vm = machines.of(tx, permit)
        wanted = Mailbox.ON if on else Mailbox.OFF
        if vm.mailbox is not wanted:
            _keep(tx, vm, wanted, permit.actor)
        return wanted

    return await app.db.write(change)


async def overflow(app: App, vm: str) -> None:
    """Turn the mailbox of a VM with MAX_UNREAD unread mails off, and tell its owner. Idempotent."""

    def change(tx: Tx) -> None:
        found = vms.by_id(tx, vm)
        if found is not None and found.mailbox is Mailbox.ON:
            _keep(tx, found, Mailbox.FULL, SYSTEM)
            _tell(tx, found)

    await app.db.write(change)


def _keep(tx: Tx, vm: Vm, mailbox: Mailbox, actor: str) -> None:
    vms.update(tx, vm.id, mailbox=mailbox)
    tx.emit(Event("share.mailbox", actor, vm.id, {"name": vm.name, "mailbox": mailbox.value}))


def _tell(tx: Tx, vm: Vm) -> None:
    owner = identity.user_by(tx, "id", vm.owner)
    if owner is not None and owner.email:  # addresses are verified or empty
        mail.post(tx, owner.email, f"{vm.name} takes no mail any more", "\n\n".join((
            f"{MAX_UNREAD} mails lie unread in ~/Maildir/new of {vm.name}, so it takes no more; what is sent to it "
            "goes back to its sender.",
            f"Read or move them, then: share receive-email {vm.name} on",
        )) + "\n")
