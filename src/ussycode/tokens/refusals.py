"""Every way in which a token is refused, each with its own code."""
from __future__ import annotations

from ussycode.base.errors import ErrorCode, Kind

_HOW = "see: doc tokens"
MISSING = ErrorCode(
    "token.missing", Kind.UNAUTHENTICATED, "no token was sent", hint="send Authorization: Bearer usy0.…"
)
TOO_LONG = ErrorCode("token.too_long", Kind.UNAUTHENTICATED, "a token has at most {limit} characters", hint=_HOW)
MALFORMED = ErrorCode(
    "token.malformed", Kind.UNAUTHENTICATED, "that is not a token: one is usy0, payload and signature joined by dots",
    hint="both are base64url without padding",
)
PAYLOAD = ErrorCode("token.payload", Kind.UNAUTHENTICATED, "the token's payload is refused: {why}", hint=_HOW)
SIGNATURE = ErrorCode(
    "token.signature", Kind.UNAUTHENTICATED, "the token's signature is refused: {why}", hint="sign with -n {namespace}"
)
NAMESPACE = ErrorCode(
    "token.namespace", Kind.UNAUTHENTICATED, "the token was made for another place than {namespace}",
    hint="a token opens the API or one VM, not both; sign with -n {namespace}",
)
KEY = ErrorCode(
    "token.key_unknown", Kind.UNAUTHENTICATED, "the token's key {key} is not registered here",
    hint="register it with ssh-key add, or sign with a key that is",
)
UNKNOWN = ErrorCode(
    "token.unknown", Kind.UNAUTHENTICATED, "the token is unknown or was revoked",
    hint="make another: ssh-key generate-api-key",
)
REVOKED = ErrorCode("token.revoked", Kind.UNAUTHENTICATED, "the token was revoked", hint="sign a new one")
EXPIRED = ErrorCode("token.expired", Kind.UNAUTHENTICATED, "the token has expired", hint="make a new one")
EARLY = ErrorCode(
    "token.not_yet", Kind.UNAUTHENTICATED, "the token is not valid yet", hint="wait until its nbf, or check the clock"
)
RATE = ErrorCode("token.rate", Kind.TOO_MANY, "too many new tokens of this key", hint="use one token for many calls")
