"""What stands in an owner's way: machines that failed, room that runs out, an account that cannot be reached."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ussycode.access.decide import Permit
from ussycode.access.facts import Caller
from ussycode.ports import App
from ussycode.vms import ops, policy
from ussycode.vms.model import Vm
from ussycode.vms.policy import Usage

NEARLY = 0.8
"""Part of a quota from which on it is told."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `todo` is empty when all is well."""

    what: str
    ok: bool
    found: str
    todo: str = ""


async def examine(app: App, caller: Caller, permit: Permit) -> tuple[Finding, ...]:
    """Everything that was looked at, in a fixed order."""
    mine = await ops.mine(app, permit)
    usage = await ops.usage(app, permit)
    return (*(_machine(vm) for vm in mine), *_room(caller, usage), _address(caller), _images(app))


def _machine(vm: Vm) -> Finding:
    if vm.phase == "failed":
        return Finding(vm.name, False, vm.detail or "it died or never came up", f"why {vm.name}")
    if vm.remark:
        return Finding(vm.name, False, vm.remark, f"why {vm.name}")
    return Finding(vm.name, True, vm.status)


def _room(caller: Caller, usage: Usage) -> Iterator[Finding]:
    limits = policy.LIMITS[caller.role]
    for what, used, limit, unit in (
        ("VMs", usage.vms, limits.vms, ""), ("memory", usage.memory_mib, limits.memory_mib, " MiB"),
        ("disk", usage.disk_gib, limits.disk_gib, " GiB"),
    ):
        if limit is None:
            yield Finding(what, True, f"{used}{unit} in use, no limit")
            continue
        full = used >= limit * NEARLY
        yield Finding(what, not full, f"{used} of {limit}{unit} in use", "rm what you do not need" if full else "")


def _address(caller: Caller) -> Finding:
    if caller.email:
        return Finding("e-mail", True, "verified")
    return Finding("e-mail", False, "no verified address: apps are not told who you are", "email add ADDRESS")


def _images(app: App) -> Finding:
    ready = app.images.names()
    default = app.config.default_image
    if default in ready:
        return Finding("images", True, f"{default} is ready")
    return Finding("images", False, f"{default} is not ready; there is: {', '.join(ready) or 'none'}",
                   f"new --image {ready[0]}" if ready else "ask the operator to build one")
