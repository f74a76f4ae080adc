"""Making a VM of a file that somebody sends: a disk, or an archive of files."""
from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from ussycode.access.decide import Permit
from ussycode.base.db import Tx
from ussycode.ports import App, Talk
from ussycode.runtime.images.store import Image
from ussycode.runtime.images.uploads import Upload
from ussycode.runtime.qcow2.layout import MAX_SIZE
from ussycode.vms import images, ops, policy, store
from ussycode.vms.model import Vm
from ussycode.vms.ops import Spec


@dataclass(frozen=True)
class Imported:
    """A VM that answers, and the image it was made of."""

    vm: Vm
    image: Image


async def take(app: App, permit: Permit, spec: Spec, chunks: AsyncIterator[bytes], talk: Talk) -> Imported:
    """Take the file in, keep it as an image of the caller's alone, and wait until the VM answers.

    `spec.size` is how small its disk may be. Raises a quota, what `Uploads.take` and what `ops.create` raise; an
    image that was made stays.
    """
    assert spec.name is not None
    await ops.require_room(app, permit, spec.name, replace(spec.size, disk_gib=1))
    limit = await app.db.read(lambda tx: _room(tx, permit))
    image = await app.images.take_in(Upload(permit.actor, spec.name, limit, chunks), talk.progress)
    await images.keep(app, permit, image, image.name.partition("@")[0], private=True)
    await talk.progress(f"booting {spec.name}")
    size = replace(spec.size, disk_gib=max(spec.size.disk_gib, -(-image.size >> 30)))
    return Imported(await ops.create(app, permit, replace(spec, image=image.name, size=size), talk), image)


def _room(tx: Tx, permit: Permit) -> int:
    """Bytes that one more disk of the caller's may have; what is in the trash gives way."""
    left = policy.disk_left(permit.caller.role, store.usage(tx, permit.actor))
    trashed = sum(vm.disk_gib for vm in store.trashed_of(tx, permit.actor))
    return MAX_SIZE if left is None else (left + trashed) << 30
