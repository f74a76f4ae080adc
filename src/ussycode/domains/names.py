"""Domain names as people type them, and which of them may be served here."""
from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import idna

MAX_TYPED = 300
"""Characters of a name as typed."""
MAX_NAME = 230
"""Characters of a name; 253 is the limit of DNS, and names of proofs are put in front of it."""
SPECIAL = frozenset({"localhost", "local", "onion", "invalid", "arpa", "alt"})
"""Top-level names that no public DNS delegates (RFC 6761, 6762, 7686, 9476); `test` and `example` are for trying."""
TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}), frozenset({"LATIN", "CJK", "BOPOMOFO"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
)
"""Scripts that real words mix (Unicode TS 39, level "highly restrictive"); any other mixture imitates a name."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Domain:
    """A name in the form of DNS: lower case, `xn--` for what is not ASCII, no dot at the end.

    `pattern` is true for `*.NAME`: every name one label below, and not NAME itself.
    """

    name: str
    pattern: bool = False

    def __str__(self) -> str:
        return f"*.{self.name}" if self.pattern else self.name


def parse(text: str) -> Domain:
    """A domain, or `*.` and a domain. Raises ValueError with the rule that `text` breaks."""
    if len(text) > MAX_TYPED:
        raise ValueError(f"a domain has at most {MAX_NAME} characters")
    rest = text.removeprefix("*.")
    name = _ascii(rest.removesuffix("."))
    labels = name.split(".")
    if len(name) > MAX_NAME:
        raise ValueError(f"a domain has at most {MAX_NAME} characters")
    if len(labels) < 2:
        raise ValueError("write a whole domain, such as app.example.com")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a domain is labels of letters, digits and -, joined by dots; * may only be the first label")
    if labels[-1].isdigit():
        raise ValueError("an address is not a domain")
    if labels[-1] in SPECIAL:
        raise ValueError(f".{labels[-1]} is not a part of the public DNS")
    for label in labels:
        _require_one_script(label)
    return Domain(name, rest != text)


def _ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True, std3_rules=True, transitional=False).decode()
    except idna.IDNAError:
        raise ValueError("that is no domain name (IDNA 2008)") from None


def _require_one_script(label: str) -> None:
    """Letters of several alphabets in one label make it look like another name."""
    if not label.startswith("xn--"):
        return
    try:
        shown = idna.decode(label)
    except idna.IDNAError:
        raise ValueError(f"{label} is not a valid name (IDNA 2008)") from None
    scripts = {unicodedata.name(c, "UNKNOWN").split()[0].split("-")[0] for c in shown if c.isalpha()}
    if len(scripts) > 1 and not any(scripts <= known for known in TOGETHER):
        raise ValueError(f"{label} mixes alphabets and would look like another name")
