"""Use cases of mail for VMs: may this address get one, and getting it there."""
from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from ussycode.access.actions import Action
from ussycode.access.decide import Permit, permit
from ussycode.access.facts import NOBODY, Facts
from ussycode.base.db import Tx
from ussycode.base.errors import Failure
from ussycode.base.names import VM_NAME
from ussycode.inbox import maildir
from ussycode.inbox.model import Mail, Outcome, Recipient, together
from ussycode.mail.relay import ADDRESS
from ussycode.ports import App
from ussycode.sharing import facts, mailbox
from ussycode.tokens.rate import Buckets
from ussycode.vms import store as vms
from ussycode.vms import waking
from ussycode.vms.model import MAX_UNREAD, Vm

MAILS_PER_HOUR = 100
"""Mails that one VM takes, all of them at once or not."""
GUEST_SECONDS = 60.0
"""Time that a guest has to take one mail."""
MAX_PARTED = 4096
"""Mails that only some of their recipients have so far, of which is known who; their senders send them again."""


class Inbox:
    """Takes mail for the VMs of one platform."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._paces = Buckets(app.clock, MAILS_PER_HOUR / 3600, MAILS_PER_HOUR)
        self._parted: OrderedDict[bytes, frozenset[str]] = OrderedDict()

    async def accept(self, address: str) -> Recipient | Outcome:
        """Who gets mail for `address`, or why nobody does. Counts against what the VM takes in an hour."""
        found = await self._app.db.read(lambda tx: self._of_address(tx, address))
        if found is None:
            return Outcome.NO_MAILBOX
        if not _may_run(found):
            return Outcome.NOT_RUNNING
        return Outcome.TOO_MANY if self._paces.take(found.id) else Recipient(address, found.id)

    async def deliver(self, mail: Mail, to: Sequence[Recipient]) -> Outcome:
        """Put it into every recipient's VM; several can be slow or gone, so none waits for another.

        When its sender has to send it again, those who have it already do not get it twice.
        """
        digest = mail.digest()
        done = self._parted.pop(digest, frozenset())
        waiting = [recipient for recipient in to if recipient.address not in done]
        found = await asyncio.gather(*(self._deliver(mail, recipient) for recipient in waiting))
        outcome = together([*found, *(Outcome.TAKEN for recipient in to if recipient not in waiting)])
        if outcome is not Outcome.TAKEN:
            now = zip(waiting, found, strict=True)
            self._remember(digest, done | {one.address for one, came in now if came is Outcome.TAKEN})
        return outcome

    def _remember(self, digest: bytes, done: frozenset[str]) -> None:
        if done:
            self._parted[digest] = done
        while len(self._parted) > MAX_PARTED:
            self._parted.popitem(last=False)

    async def _deliver(self, mail: Mail, to: Recipient) -> Outcome:
        outcome = await self._put(mail, to)
        self._app.telemetry.event(f"inbox.{outcome}")
        return outcome

    async def _put(self, mail: Mail, to: Recipient) -> Outcome:
        app = self._app
        allowed = await app.db.read(lambda tx: self._permit(tx, to.vm))
        if allowed is None:
            return Outcome.NO_MAILBOX
        try:
            vm = await waking.reachable(app, allowed)
        except Failure:
            return Outcome.NOT_RUNNING
        parts = (b"Delivered-To: %b\n" % to.address.encode() + mail.trace, mail.content)
        name = f"{int(app.clock.now())}.{secrets.token_hex(8)}.{app.config.domain}"
        try:
            async with asyncio.timeout(GUEST_SECONDS):
                user = app.images.login_user(vm.image)
                kept = await maildir.keep(app.link, vm.id, user, name, parts, MAX_UNREAD)
        except (Failure, TimeoutError) as why:
            detail = why.detail if isinstance(why, Failure) else "it took too long"
            app.telemetry.log.warning("a guest did not take a mail", vm=vm.id, why=f"{why} {detail}".strip())
            return Outcome.NOT_KEPT
        if not kept:
            await mailbox.overflow(app, vm.id)
        return Outcome.TAKEN if kept else Outcome.FULL

    def _of_address(self, tx: Tx, address: str) -> Vm | None:
        """The VM behind an address, when it takes mail."""
        name = vm_name(self._app.config.domain, address)
        found = vms.by_name(tx, name) if name else None
        return found if self._permit(tx, found.id if found is not None else "") is not None else None

    def _permit(self, tx: Tx, vm: str) -> Permit | None:
        found = facts.shown(tx, self._app.images, vm) if vm else None
        made, decision = permit(Action.VM_MAIL, Facts(NOBODY, found, now=tx.now))
        self._app.telemetry.decision(Action.VM_MAIL.value, decision.reply.value, decision.reason.value)
        return made


def vm_name(domain: str, address: str) -> str:
    """The VM that an address means by its shape, `anything@NAME.DOMAIN`; empty for none."""
    host = address.rpartition("@")[2].lower()
    label, _, rest = host.partition(".")
    named = rest == domain and VM_NAME.fullmatch(label) is not None and "--" not in label
    return label if named and ADDRESS.fullmatch(address) else ""


def _may_run(vm: Vm) -> bool:
    return vm.running or vm.status == "starting" or vm.asleep
