"""Whose token it is and what it may do; good ones are remembered until something about them changes."""
from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ussycode.access.facts import Caller, Via
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.identity import ops as identity
from ussycode.identity.keys import fingerprint
from ussycode.ports import App
from ussycode.tokens import sshsig
from ussycode.tokens.payload import Payload, parse
from ussycode.tokens.rate import Buckets

_HOW = "see help; a token is made with ssh-keygen -Y sign"
TOKEN_MISSING = ErrorCode(
    "token.missing", Kind.UNAUTHENTICATED, "no token was sent", hint="send Authorization: Bearer usy0.…"
)
TOKEN_LONG = ErrorCode("token.too_long", Kind.UNAUTHENTICATED, "a token has at most {limit} characters", hint=_HOW)
TOKEN_MALFORMED = ErrorCode(
    "token.malformed", Kind.UNAUTHENTICATED, "that is not a token: one is usy0, payload and signature joined by dots",
    hint="both are base64url without padding",
)
TOKEN_PAYLOAD = ErrorCode("token.payload", Kind.UNAUTHENTICATED, "the token's payload is refused: {why}", hint=_HOW)
TOKEN_SIGNATURE = ErrorCode(
    "token.signature", Kind.UNAUTHENTICATED, "the token's signature is refused: {why}", hint="sign with -n {namespace}"
)
TOKEN_KEY = ErrorCode(
    "token.key_unknown", Kind.UNAUTHENTICATED, "the token's key {key} is not registered here",
    hint="register it with ssh-key add, or sign with a key that is",
)
TOKEN_EXPIRED = ErrorCode("token.expired", Kind.UNAUTHENTICATED, "the token has expired", hint="sign a new one")
TOKEN_EARLY = ErrorCode(
    "token.not_yet", Kind.UNAUTHENTICATED, "the token is not valid yet", hint="wait until its nbf, or check the clock"
)
TOKEN_RATE = ErrorCode(
    "token.rate", Kind.TOO_MANY, "too many new tokens of this key", hint="use one token for many calls"
)

PREFIX = "usy0"
MAX_TOKEN = 8192
"""Characters of a whole token."""
MAX_KEPT = 4096
"""Good tokens remembered; the one unused for longest goes first."""
NEW_PER_MINUTE = 6000
"""Signatures checked a minute for one key: a check costs up to a millisecond, and public keys are public."""
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Verified:
    """A token whose signature is good. Its times are checked at every use."""

    caller: Caller
    payload: Payload


@dataclass
class TokenVerifier:
    """Turns tokens into callers. Register `heard` with the database, so that a removed key bites at once."""

    app: App
    _kept: OrderedDict[bytes, Verified] = field(default_factory=OrderedDict)
    _drops: int = 0

    def __post_init__(self) -> None:
        self._new = Buckets.per_minute(self.app.clock, NEW_PER_MINUTE)
        self.namespace = f"v0@{self.app.config.domain}"

    async def heard(self, events: Sequence[Event]) -> None:
        """Forget the tokens of accounts that changed."""
        users = {e.subject for e in events if e.kind == "key.removed" or e.kind.startswith("user.")}
        if not users:
            return
        self._drops += 1
        for digest in [d for d, v in self._kept.items() if v.caller.user in users]:
            del self._kept[digest]

    async def verify(self, token: str) -> Caller:
        """The caller behind `token`, limited to its commands. Raises one of the declared errors above."""
        if not token:
            raise TOKEN_MISSING()
        if len(token) > MAX_TOKEN:
            raise TOKEN_LONG(limit=MAX_TOKEN)
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        found = self._kept.get(digest)
        if found is None:
            found = await self._check(token, digest)
        else:
            self._kept.move_to_end(digest)
        self._require_time(found.payload)
        return found.caller

    async def _check(self, token: str, digest: bytes) -> Verified:
        raw, blob = _parts(token)
        sig = self._read(blob)
        key = fingerprint(sig.key)
        drops = self._drops
        found = await identity.recognise(self.app, key)
        if found is None:
            raise TOKEN_KEY(key=key)
        if wait := self._new.take(key):
            limited = TOKEN_RATE()
            limited.retry_after = wait
            raise limited
        try:
            sshsig.verify(sig, self.namespace, raw)
        except ValueError as why:
            raise self._refused(why) from None
        payload = _payload(raw)
        caller = identity.caller_of(found[1], Via.TOKEN, key, payload.commands)
        return self._keep(digest, Verified(caller, payload), drops)

    def _read(self, blob: bytes) -> sshsig.SshSig:
        try:
            return sshsig.parse(blob)
        except ValueError as why:
            raise self._refused(why) from None

    def _refused(self, why: ValueError) -> Exception:
        return TOKEN_SIGNATURE(why=why, namespace=self.namespace)

    def _keep(self, digest: bytes, found: Verified, drops: int) -> Verified:
        # Something was removed while this one was looked up: it counts once more, and is not remembered.
        if drops != self._drops or self._over(found.payload):
            return found
        self._kept[digest] = found
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found

    def _over(self, payload: Payload) -> bool:
        return payload.exp is not None and payload.exp <= self.app.clock.now()

    def _require_time(self, payload: Payload) -> None:
        if self._over(payload):
            raise TOKEN_EXPIRED()
        if payload.nbf is not None and self.app.clock.now() < payload.nbf:
            raise TOKEN_EARLY()


def _parts(token: str) -> tuple[bytes, bytes]:
    words = token.split(".")
    if len(words) != 3 or words[0] != PREFIX:
        raise TOKEN_MALFORMED()
    return _decoded(words[1]), _decoded(words[2])


def _decoded(text: str) -> bytes:
    # Exactly one spelling of every token: padding, other letters and stray last bits are refused.
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise TOKEN_MALFORMED()
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise TOKEN_MALFORMED()
    return data


def _payload(raw: bytes) -> Payload:
    try:
        return parse(raw)
    except ValueError as why:
        raise TOKEN_PAYLOAD(why=why) from None
