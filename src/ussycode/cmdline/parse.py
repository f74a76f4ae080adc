"""Words to arguments: one parser for every command, read off its declaration."""
from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ussycode.base.errors import ErrorCode, Kind, printable
from ussycode.cmdline.spec import Command, Param, truth

UNKNOWN_FLAG = ErrorCode(
    "usage.unknown_flag", Kind.USAGE, "{command} has no flag {flag}", hint="{suggestion}see: help {command}"
)
MISSING_VALUE = ErrorCode(
    "usage.missing_value", Kind.USAGE, "{flag} needs a value", hint="write {flag}=VALUE; see: help {command}"
)
BAD_VALUE = ErrorCode(
    "usage.bad_value", Kind.USAGE, "{what}: {value} is not usable: {why}", hint="see: help {command}"
)
MISSING_WORD = ErrorCode("usage.missing_word", Kind.USAGE, "{command} needs {what}", hint="usage: {usage}")
TOO_MANY = ErrorCode("usage.too_many_words", Kind.USAGE, "{command} has no use for {word}", hint="usage: {usage}")


SHOWN = 60
"""Characters of a value that is not usable that are told back."""


@dataclass(frozen=True)
class Parsed:
    """What the words meant. `args` is None when only help was asked for."""

    command: Command
    args: Any
    json: bool = False
    help: bool = False


@dataclass
class _Reading:
    command: Command
    values: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    json: bool = False
    help: bool = False


def parse(command: Command, words: Sequence[str], json: bool = False) -> Parsed:
    """Arguments of `command` from `words`. Raises a USAGE failure that names the culprit."""
    reading = _Reading(command, json=json)
    _read(reading, list(words))
    if reading.help:
        return Parsed(command, None, reading.json, True)
    return Parsed(command, _build(reading), reading.json)


def usage(command: Command) -> str:
    """One line: `new [--name NAME] [--image IMAGE]`, without flags that are only answered with a reason."""
    return " ".join((command.name, *(_shape(p) for p in command.params if p.offered)))


def _shape(param: Param) -> str:
    name = param.name.replace("_", "-")
    if param.kind == "switch":
        return f"[{param.flag}]"
    if param.kind == "flag":
        return f"[{param.flag} {name.upper()}]" + ("..." if param.many else "")
    if param.kind == "rest":
        return f"[{name.upper()}...]"
    shape = name.upper() + ("..." if param.many else "")
    return shape if param.required else f"[{shape}]"


_ASKS = ("--json", "--help", "-h")
"""Understood among words that are taken as they are, unless those are a command for a VM."""


def _read(reading: _Reading, words: list[str]) -> None:
    verbatim = any(p.kind == "rest" for p in reading.command.params)
    positional = sum(p.kind == "word" for p in reading.command.params)
    while words:
        word = words.pop(0)
        if word == "--":
            reading.words += words
            return
        if verbatim and len(reading.words) >= positional and not (positional == 0 and word in _ASKS):
            # Without a word before them, the words that are taken as they are belong to us and not to another program.
            reading.words += [word, *words] if positional else [word]
            if positional:
                return
            continue
        if word.startswith("-") and len(word) > 1:
            _flag(reading, word, words)
        else:
            reading.words.append(word)


def _flag(reading: _Reading, word: str, words: list[str]) -> None:
    name, equals, value = word.partition("=")
    if name == "--json":
        reading.json = _value(reading.command, JSON, value) if equals else True
        return
    if name in ("--help", "-h"):
        reading.help = True
        return
    param = _param(reading.command, name)
    if param.kind == "switch":
        reading.values[param.name] = _value(reading.command, param, value) if equals else True
        return
    if not equals:
        if not words:
            raise MISSING_VALUE(flag=param.flag, command=reading.command.name)
        value = words.pop(0)
    made = _value(reading.command, param, value)
    old = reading.values.get(param.name, ())
    reading.values[param.name] = (*old, made) if param.many else made


JSON = Param("json", "switch", truth, "print one JSON document")
"""Every command has it; it is not declared by any."""


def _param(command: Command, name: str) -> Param:
    flags = {p.flag: p for p in command.params if p.kind in ("flag", "switch")}
    # Clients that know one kind of flag write `--d` for `-d`.
    shorts = {dashes + p.short: p for p in command.params if p.short for dashes in ("-", "--")}
    if found := flags.get(name) or shorts.get(name):
        return found
    near = difflib.get_close_matches(name, [*flags, "--json", "--help"], 1, 0.6)
    raise UNKNOWN_FLAG(command=command.name, flag=name, suggestion=f"did you mean {near[0]}? " if near else "")


def _value(command: Command, param: Param, text: str) -> Any:
    try:
        return param.parse(text)
    except ValueError as why:
        what = param.flag if param.kind in ("flag", "switch") else param.name.replace("_", " ")
        raise BAD_VALUE(what=what, value=printable(repr(text), SHOWN), why=why, command=command.name) from None


def _build(reading: _Reading) -> Any:
    command, words = reading.command, list(reading.words)
    for param in command.params:
        if param.kind == "rest" or (param.kind == "word" and param.many):
            made = tuple(_value(command, param, w) for w in words)
            words = []
            if param.required and not made:
                raise _missing(command, param)
            reading.values[param.name] = made
        elif param.kind == "word" and words:
            reading.values[param.name] = _value(command, param, words.pop(0))
        elif param.kind == "word" and param.required:
            raise _missing(command, param)
    if words:
        raise TOO_MANY(command=command.name, word=repr(words[0]), usage=usage(command))
    return command.args(**reading.values)


def _missing(command: Command, param: Param) -> Exception:
    article = "an" if param.name[0] in "aeiou" else "a"
    what = f"{article} {param.name.replace('_', ' ')}"
    return MISSING_WORD(command=command.name, what=what, usage=usage(command))
