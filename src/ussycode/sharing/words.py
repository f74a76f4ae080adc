"""Words that commands about sharing take."""
from __future__ import annotations

from ussycode.base.errors import printable
from ussycode.base.names import HANDLE
from ussycode.identity.emails import read_address

TEAM = "team"
"""Where a person may be named, the team of the owner; no handle is called so."""
MAX_MESSAGE = 500
"""Characters of what an owner adds to an invitation."""
MAX_LABEL = 60
MAX_USES = 100_000


def port_number(text: str) -> int:
    """A TCP port of the guest."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def person(text: str) -> str:
    """An e-mail address, a handle, or `team`."""
    if "@" in text:
        return read_address(text)
    name = text.strip().lower()
    if not HANDLE.fullmatch(name):
        raise ValueError("write an e-mail address such as name@example.org, or a handle")
    return name


def message(text: str) -> str:
    """What an owner wants to say: one line of printable text."""
    if len(text) > MAX_MESSAGE or printable(text, MAX_MESSAGE) != text:
        raise ValueError(f"at most {MAX_MESSAGE} printable characters")
    return text


def label(text: str) -> str:
    """What a link is told apart by."""
    if not 0 < len(text) <= MAX_LABEL or printable(text) != text:
        raise ValueError(f"1 to {MAX_LABEL} printable characters")
    return text


def uses(text: str) -> int:
    """How many people may use a link."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:7]) <= MAX_USES:
        raise ValueError(f"a number from 1 to {MAX_USES}")
    return int(text)


def link(text: str) -> str:
    """A link's id, its token, or the whole address it is opened at."""
    name = text.rpartition("/")[2]
    if not 0 < len(name) <= MAX_LABEL or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError("write the link's id or token; share show lists the ids")
    return name


def grant(text: str) -> bool:
    """`allow` or `disallow`."""
    if text not in ("allow", "disallow"):
        raise ValueError("say allow or disallow")
    return text == "allow"
