"""Errors are declared once (code, kind, sentence, hint) and rendered at the door.

    Failure                 what is raised; carries its declaration and the words filled in
      ErrorCode             the declaration: call it with the placeholders to make a Failure
        Kind                closed set; carries HTTP status and exit code
"""
from __future__ import annotations

import enum
import string
from dataclasses import dataclass, field


class Kind(enum.Enum):
    """What sort of failure, with the HTTP status of `/exec` and the exit code of a shell."""

    USAGE = ("usage", 422, 2)
    BAD_REQUEST = ("bad_request", 400, 2)
    UNAUTHENTICATED = ("unauthenticated", 401, 1)
    FORBIDDEN = ("forbidden", 403, 1)
    UNKNOWN_COMMAND = ("unknown_command", 404, 127)
    NOT_FOUND = ("not_found", 422, 1)
    CONFLICT = ("conflict", 422, 1)
    FAILED = ("failed", 422, 1)
    TOO_LARGE = ("too_large", 413, 1)
    TOO_MANY = ("too_many", 429, 1)
    UNAVAILABLE = ("unavailable", 422, 1)
    TIMEOUT = ("timeout", 504, 1)
    INTERNAL = ("internal", 500, 1)

    @property
    def status(self) -> int:
        """HTTP status code."""
        return self.value[1]

    @property
    def exit_code(self) -> int:
        """Exit status of a one-shot command."""
        return self.value[2]


@dataclass(frozen=True)
class ErrorCode:
    """One declared error. `sentence` and `hint` are `str.format` templates of keyword words."""

    code: str
    kind: Kind
    sentence: str
    hint: str = ""

    def __post_init__(self) -> None:
        if DECLARED.setdefault(self.code, self) != self:
            raise ValueError(f"two errors are declared as {self.code}")

    def __call__(self, **words: object) -> Failure:
        return Failure(self, {k: str(v) for k, v in words.items()})

    @property
    def placeholders(self) -> frozenset[str]:
        """Names that must be given when the error is made."""
        parts = string.Formatter().parse(self.sentence + self.hint)
        return frozenset(name for _, name, _, _ in parts if name)


DECLARED: dict[str, ErrorCode] = {}
"""Every declared error by code, filled when modules are imported; the golden list and docs read it."""


@dataclass
class Failure(Exception):
    """A declared error with its words. `detail` stays in the log, never on the wire."""

    error: ErrorCode
    words: dict[str, str] = field(default_factory=dict)
    detail: str = ""
    retry_after: float | None = None
    meant: str = ""
    """What somebody probably meant who wrote what is wrong; offered before the hint."""

    def __str__(self) -> str:
        return self.sentence

    @property
    def sentence(self) -> str:
        """The sentence a person reads; user text in it is cleaned of control characters."""
        return self.error.sentence.format(**_clean(self.words))

    @property
    def hint(self) -> str:
        """What to do next; may be empty."""
        hint = self.error.hint.format(**_clean(self.words))
        return f"did you mean {printable(self.meant)}? {hint}" if self.meant else hint

    @property
    def code(self) -> str:
        """Stable machine-readable code."""
        return self.error.code

    @property
    def kind(self) -> Kind:
        """Closed kind of the error."""
        return self.error.kind

    def because(self, detail: object) -> Failure:
        """Attach internal detail for the log and return the same failure."""
        self.detail = str(detail)
        return self


MAX_WORD = 1000
"""Longest word filled into a sentence, in characters."""


def printable(text: str, limit: int = 200) -> str:
    """`text` without control characters (C0, DEL, C1, bidi overrides), cut to `limit` characters."""
    plain = text.isascii() and text.isprintable()
    shown = text if plain else "".join(c if c.isprintable() and c not in _BIDI else "?" for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def _clean(words: dict[str, str]) -> dict[str, str]:
    return {name: printable(word, MAX_WORD) for name, word in words.items()}


INTERNAL = ErrorCode(
    "internal", Kind.INTERNAL, "something went wrong on our side (request {request_id})",
    hint="try again; the operator finds the cause in the log under that id",
)
