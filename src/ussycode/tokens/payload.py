"""What a token says: one strict JSON object of `exp`, `nbf`, `cmds` and `ctx`."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EARLIEST, LATEST = 946_684_800, 4_102_444_800
"""Times a token may name: the years 2000 to 2100, unix seconds."""
MAX_COMMANDS = 256
"""Command paths one token may list."""
MAX_COMMAND = 200
"""Characters of one command path."""
DEFAULT_COMMANDS = frozenset({"help", "ls", "new", "whoami", "ssh-key list", "share show", "usy0-to-usy1"})
"""What a token may run that has no `cmds`."""
FIELDS = frozenset({"exp", "nbf", "cmds", "ctx"})


@dataclass(frozen=True)
class Payload:
    """A token's own limits. Times in unix seconds, None for no limit.

    `ctx` is the text of that value, byte for byte as it was signed; it is not interpreted. Empty without one.
    """

    exp: int | None
    nbf: int | None
    commands: frozenset[str]
    ctx: str = ""


def parse(raw: bytes) -> Payload:
    """The payload in `raw`. Raises ValueError with a phrase that names the rule it breaks."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    _require_plain(text)
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    if unknown := sorted(found.keys() - FIELDS):
        raise ValueError(f"{unknown[0][:40]!r} is not one of exp, nbf, cmds, ctx")
    return Payload(_time(found, "exp"), _time(found, "nbf"), _commands(found), _raw(text, "ctx"))


def _require_plain(text: str) -> None:
    if text != text.strip():
        raise ValueError("white space stands at its beginning or end")
    if any(c in text for c in "\r\n"):
        raise ValueError("it has a line break")
    if "\0" in text:
        raise ValueError("it has a NUL byte")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _no_constant(_: str) -> Any:
    raise ValueError("it is not JSON")


def _time(found: dict[str, Any], name: str) -> int | None:
    if name not in found:
        return None
    at = found[name]
    if type(at) is not int:
        raise ValueError(f"{name} is not a whole number")
    if not EARLIEST <= at <= LATEST:
        raise ValueError(f"{name} is outside {EARLIEST} to {LATEST}")
    return at


def _raw(text: str, name: str) -> str:
    """The text of one value of the object that `text` is; empty when it has none. `text` is good JSON."""
    decoder, at = json.JSONDecoder(), 1
    while (at := _past(text, at, ",")) < len(text) and text[at] == '"':
        key, at = decoder.raw_decode(text, at)
        start = _past(text, at, ":")
        _, at = decoder.raw_decode(text, start)
        if key == name:
            return text[start:at]
    return ""


def _past(text: str, at: int, mark: str) -> int:
    while at < len(text) and text[at] in " \t" + mark:
        at += 1
    return at


def _commands(found: dict[str, Any]) -> frozenset[str]:
    if "cmds" not in found:
        return DEFAULT_COMMANDS
    listed = found["cmds"]
    if not isinstance(listed, list) or not all(isinstance(c, str) for c in listed):
        raise ValueError("cmds is not a list of command names")
    if len(listed) > MAX_COMMANDS or any(not 0 < len(c) <= MAX_COMMAND for c in listed):
        raise ValueError(f"cmds has more than {MAX_COMMANDS} names, or one that is empty or too long")
    return frozenset(listed)
