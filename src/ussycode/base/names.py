"""Names people choose: VM names and handles, with what is reserved and why a name is refused."""
from __future__ import annotations

import random
import re


def _words(text: str) -> list[str]:
    return text.split()


LOGIN_NAMES = frozenset(
    _words("""
root admin administrator user guest ubuntu debian git vm lobby ussy ussycode exe anonymous nobody
operator ec2-user centos fedora pi vagrant deploy
""")
)
"""SSH user names that always mean the lobby, so no VM may take them."""
RESERVED = LOGIN_NAMES | frozenset(
    _words("""
www api auth login logout account dashboard docs doc help status mail smtp imap pop mx ns ns1 ns2 dns ftp
ssh sftp cdn static assets support security abuse postmaster hostmaster webmaster localhost internal
metadata acme gateway edge node nodes control registry hub llm int team teams share metrics health new ls rm
""")
)
"""Host names the platform keeps for itself."""

ALTERNATE_PORTS = range(3000, 10_000)
"""Ports of a VM that have an address of their own, `PORT--NAME.DOMAIN`, beside the primary one."""
VM_NAME = re.compile(r"[a-z][a-z0-9-]{1,51}[a-z0-9]")
HANDLE = re.compile(r"[a-z][a-z0-9-]{0,18}[a-z0-9]")
_FIRST = _words("""
amber autumn bold brave bright calm cedar clear clever coral cosmic crisp dapper delta eager early ember fair
fern fleet frost gentle gold grand green happy hazel ivory jade jolly keen kind lake lilac lucky lunar maple
meadow merry mild mint misty noble north ocean olive opal pearl pine plain prime proud quick quiet rapid river
robin royal ruby rustic sage sandy scarlet silent silver sky smooth snow solar spring stone sunny swift teal
tidy tiny topaz velvet violet vivid warm west wild willow winter wise young
""")
_SECOND = _words("""
acorn anchor apple arrow badger bay beacon bear beaver birch bird bloom brook canyon castle cloud comet cove
crane creek dawn deer dove dune eagle falcon field finch fire fjord forest fox garden glade harbor hare hawk
heron hill island kite lantern lark leaf lion lotus lynx marsh mesa moon moss mountain nebula oak orchid otter
owl panda path peak pebble phoenix planet pond prairie puffin quartz rain raven reef ridge robin rocket sail
sea seal shore spark sparrow star stream summit sun swan tiger trail tree tulip valley wave whale wind wolf
wren
""")


def vm_name(text: str) -> str:
    """A usable VM name. Raises ValueError with the rule that `text` breaks."""
    if not VM_NAME.fullmatch(text):
        raise ValueError("3 to 53 of a-z, 0-9 and -, beginning with a letter and not ending with -")
    if "--" in text:
        raise ValueError("two dashes in a row are kept for ports")
    if text.rpartition("-")[2].isdigit():
        raise ValueError("the part after the last dash must not be only digits")
    if text in RESERVED:
        raise ValueError("that name is reserved")
    return text


def handle(text: str) -> str:
    """A usable handle. Raises ValueError with the rule that `text` breaks."""
    if not HANDLE.fullmatch(text):
        raise ValueError("2 to 20 of a-z, 0-9 and -, beginning with a letter and not ending with -")
    if text in RESERVED:
        raise ValueError("that handle is reserved")
    return text


def invent(chance: random.Random) -> str:
    """A two-word VM name that is easy to say; about 8,900 combinations."""
    return f"{chance.choice(_FIRST)}-{chance.choice(_SECOND)}"
