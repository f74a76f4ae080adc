"""Whether people who are inside a VM may still be there."""
from __future__ import annotations

from collections.abc import Collection

from ussycode.access.actions import Action
from ussycode.access.decide import Decision, decide
from ussycode.access.facts import NOBODY, Caller, Facts, Via
from ussycode.base.db import Tx
from ussycode.identity import ops as identity
from ussycode.ports import App
from ussycode.sharing import facts

Stay = tuple[str, str]
"""Fingerprint of the SSH key somebody came in with, and the VM's id."""


async def of(app: App, stays: Collection[Stay]) -> dict[Stay, Decision]:
    """Today's decision about each stay; a key that is gone is nobody's."""

    def judge(tx: Tx) -> dict[Stay, Decision]:
        return {stay: _judge(tx, app, *stay) for stay in set(stays)}

    return await app.db.read(judge)


def _judge(tx: Tx, app: App, key: str, vm: str) -> Decision:
    found = identity.who(tx, key, Via.SSH_KEY)
    caller = NOBODY if found is None else found[0]
    return decide(Action.VM_SHELL, Facts(caller, facts.shown(tx, app.images, vm), now=tx.now))


async def of_caller(app: App, caller: Caller, vm: str, command: str) -> Decision:
    """Today's decision about somebody who runs `command` in the VM with this id."""
    return await app.db.read(lambda tx: decide(
        Action.VM_SHELL, Facts(caller, facts.shown(tx, app.images, vm), command=command, now=tx.now)
    ))
