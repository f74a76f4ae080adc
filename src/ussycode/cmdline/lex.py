"""Words of a command line, quoted as in a POSIX shell; nothing is ever expanded."""
from __future__ import annotations

from collections.abc import Iterator

from ussycode.base.errors import ErrorCode, Kind

UNBALANCED = ErrorCode(
    "line.unbalanced", Kind.BAD_REQUEST, "unbalanced {what} in the command line",
    hint="close the quote, or write a backslash before it",
)
MAX_LINE = 64 << 10
"""Longest command line in bytes, the limit of `/exec`."""


def split(line: str) -> tuple[str, ...]:
    """Words of `line`. Single quotes are literal; inside double quotes a backslash escapes only `" \\ $` and `.

    Raises UNBALANCED on an open quote or a trailing backslash.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    chars = iter(line)
    for char in chars:
        if quote == "'" and char != "'":
            word = _add(word, char)
        elif char == "\\":
            word = _add(word, _escaped(chars, quote))
        elif quote and char == quote:
            quote = ""
        elif quote:
            word = _add(word, char)
        elif char in "'\"":
            quote, word = char, word if word is not None else []
        elif char in " \t\r\n":
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = _add(word, char)
    if quote:
        raise UNBALANCED(what="single quote" if quote == "'" else "double quote")
    return (*words, "".join(word)) if word is not None else tuple(words)


def _add(word: list[str] | None, text: str) -> list[str]:
    if word is None:
        return [text]
    word.append(text)
    return word


def _escaped(chars: Iterator[str], quote: str) -> str:
    char = next(chars, "")
    if not char:
        raise UNBALANCED(what="backslash")
    if quote == '"' and char not in '"\\$`':
        return "\\" + char
    return char


def quote(word: str) -> str:
    """`word` so that `split` reads it back as one word."""
    plain = word and all(c.isalnum() or c in "-_./:=@,+%" for c in word)
    return word if plain else "'" + word.replace("'", "'\\''") + "'"
