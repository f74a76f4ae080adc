"""Commands of exe.dev that ussycode answers with a reason instead of doing them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, TypedDict

from ussycode.access.actions import Action
from ussycode.base.errors import ErrorCode, Kind
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import NOTHING, Command, command, rest, word
from ussycode.ports import Ctx

NOT_HERE = ErrorCode("offer.not_self_hosted", Kind.FAILED, "{command} is not offered on a self-hosted platform: {why}",
                     hint="{instead}")
NOT_YET = ErrorCode("offer.not_yet", Kind.FAILED, "{command} is not offered yet: {why}", hint="{instead}")
NO_REGION = ErrorCode("region.unknown", Kind.NOT_FOUND, "there is no region {region} here",
                      hint="this platform has one region: local")


@dataclass(frozen=True)
class Anything:
    """Whatever was typed; nothing of it is looked at."""

    words: tuple[str, ...] = rest(help="ignored")


@dataclass(frozen=True)
class Declined:
    """One group of commands that is answered with a reason."""

    name: str
    error: ErrorCode
    why: str
    instead: str
    aliases: tuple[str, ...] = ()


DECLINED = (
    Declined("billing", NOT_HERE, "nobody is charged", "quota shows what you may use"),
    Declined("pool", NOT_HERE, "VMs share the operator's hosts and are not bought in pools",
             "set a VM's size with: resize NAME --cpu N --memory N"),
    Declined("grant-support-root", NOT_HERE, "there is no support staff who could ask for it",
             "add the key of whom you trust: ssh-key add"),
    Declined("shelley", NOT_YET, "the platform has no agent of its own in the browser so far",
             "run an agent of your choice inside the VM"),
    Declined("integrations", NOT_YET, "VMs have no credentials lent to them so far",
             "give a VM what it needs with: new --env KEY=VALUE", ("int",)),
    Declined("team", NOT_YET, "accounts are not grouped into teams so far",
             "share a VM with people: share add NAME EMAIL"),
)


def _declared(declined: Declined) -> Command:
    @command(declined.name, needs=Action.NOTHING, on=NOTHING, reads_only=True, aliases=declined.aliases)
    async def refuse(ctx: Ctx, a: Anything) -> NoReturn:
        raise declined.error(command=declined.name, why=declined.why, instead=declined.instead)

    refuse.handler.__doc__ = f"Not offered: {declined.why}."
    return refuse


@dataclass(frozen=True)
class Region:
    """Arguments of `set-region`."""

    region: str = word(str, help="the region's code; this platform has `local` alone")


class RegionDocument(TypedDict):
    """`set-region`."""

    region: str
    region_display: str


@dataclass(frozen=True)
class RegionView:
    """The region that is in force."""

    region: str

    def text(self, style: Style) -> str:
        """One line."""
        return f"region {self.region}: every VM runs there"

    def document(self) -> RegionDocument:
        """The document of `set-region`."""
        return {"region": self.region, "region_display": "this host"}


@command("set-region", needs=Action.ACCOUNT_CHANGE, on=NOTHING, reads_only=True, examples=("set-region local",))
async def set_region(ctx: Ctx, a: Region) -> RegionView:
    """Choose where new VMs are made; a platform of one place has one region."""
    if a.region != "local":
        raise NO_REGION(region=repr(a.region))
    return RegionView(a.region)


ALL = (set_region, *(_declared(d) for d in DECLINED))
