"""What a VM may know of itself: nothing secret, and never of another one."""
from __future__ import annotations

from ussycode.base.db import Tx
from ussycode.ports import App
from ussycode.runtime.driver import Power
from ussycode.vms import store


async def about(app: App, number: int, source: str) -> dict[str, str] | None:
    """The facts of the VM with this number, asking from address `source`; None when there is none."""

    def read(tx: Tx) -> dict[str, str] | None:
        vm = store.by_number(tx, number)
        if vm is None or vm.power is Power.ABSENT:
            return None
        config = app.config
        return {
            "name": vm.name, "vm_id": vm.id, "source_ip": source, "image": vm.image,
            "https_url": config.host_url(config.vm_host(vm.name)), "ssh_dest": f"{vm.name}@{config.domain}",
        }

    return await app.db.read(read)
