"""The command that makes a VM of a file."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base import names
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import ACCOUNT, command, flag, switch, word
from ussycode.ports import Ctx
from ussycode.runtime.images.uploads import NOTHING
from ussycode.vms import imports, ops
from ussycode.vms.commands import env_pair, gibibytes, mebibytes, tag_names, vcpus
from ussycode.vms.documents import ImportDocument
from ussycode.vms.policy import DEFAULT_SIZE as DEFAULT
from ussycode.vms.policy import Size
from ussycode.vms.views import NewView, VmPlace


@dataclass(frozen=True)
class Import:
    """Arguments of `import`."""

    name: str = word(names.vm_name, help="name of the VM")
    cpu: int | None = flag(vcpus, help="virtual CPUs; 1 when omitted")
    memory: int | None = flag(mebibytes, help="memory; 512M when omitted")
    disk: int | None = flag(gibibytes, help="disk; 5G when omitted, and never smaller than what is sent")
    env: tuple[tuple[str, str], ...] = flag(env_pair, many=True, help="KEY=VALUE for everything that runs in the VM")
    tag: tuple[str, ...] = flag(tag_names, help="a tag, or several with commas", many=True)
    wake: bool = switch(help="a visit over SSH or HTTPS, or a mail, starts it when it is stopped or paused")


@dataclass(frozen=True)
class ImportView:
    """A VM that was made of a file; `image` is what the file is kept as."""

    new: NewView
    image: str

    def text(self, style: Style) -> str:
        """As for a new one, and what else there is now."""
        kept = f"  image  {self.image} is yours alone: new --image {self.image} makes more of it"
        return f"{self.new.text(style)}\n{kept}"

    def document(self) -> ImportDocument:
        """The document of `import`."""
        return {**self.new.document(), "image": self.image}


@command("import", needs=Action.VM_CREATE, on=ACCOUNT,
         examples=("import demo < demo.qcow2", "import demo --memory 1G < demo.oci.tar"))
async def import_(ctx: Ctx, a: Import) -> ImportView:
    """Make a VM of a file: a qcow2 or raw disk, an OCI archive, or a tar of a root file system, packed or not.

    Send it: ssh HOST import demo < demo.qcow2, or with a token: curl -T demo.qcow2 https://HOST/import/demo. Of a
    disk with partitions the largest with ext4 is taken; it is booted with the platform's kernel.
    """
    chunks = ctx.talk.incoming()
    if chunks is None:
        raise NOTHING()
    size = Size(a.cpu or DEFAULT.vcpus, a.memory or DEFAULT.memory_mib, a.disk or DEFAULT.disk_gib)
    tags = tuple(dict.fromkeys(t for some in a.tag for t in some))
    spec = ops.Spec(a.name, "", a.env, size, tags=tags, wake=a.wake)
    made = await imports.take(ctx.app, ctx.permit, spec, chunks, ctx.talk)
    new = NewView(made.vm, VmPlace.of(ctx.app.config, made.vm.name), made.image.default_port)
    return ImportView(new, made.image.name.partition(":latest@")[0])


ALL = (import_,)
