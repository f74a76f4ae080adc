"""How often one address may try to sign in: guessing codes and filling other people's mail boxes takes many tries."""
from __future__ import annotations

import ipaddress

from starlette.requests import Request

from ussycode.base.errors import ErrorCode, Kind
from ussycode.ports import App
from ussycode.tokens.rate import Buckets

SIGN_INS_PER_MINUTE = 30
"""Forms that one address may send below /login; a sixth of them at once. An office behind one address shares it."""
NETWORK6 = 64
"""Bits of an IPv6 address that count."""
TOO_MANY_SIGN_INS = ErrorCode(
    "http.too_many_sign_ins", Kind.TOO_MANY, "too many attempts to sign in from your address", hint="wait a moment",
)


class SignInPace:
    """One token bucket for each address, as the edge tells it; `limit_exempt` has none."""

    def __init__(self, app: App) -> None:
        self._buckets = Buckets.per_minute(app.clock, SIGN_INS_PER_MINUTE)
        self._exempt = [ipaddress.ip_network(text) for text in app.config.limit_exempt]

    def require(self, request: Request) -> None:
        """Nothing, or TOO_MANY_SIGN_INS with the seconds to wait."""
        if request.method != "POST" or not request.scope["path"].startswith("/login/"):
            return
        key = self._key(request.headers.get("x-forwarded-for", ""))
        if key and (wait := self._buckets.take(key)):
            failure = TOO_MANY_SIGN_INS()
            failure.retry_after = wait
            raise failure

    def _key(self, text: str) -> str:
        try:
            found = ipaddress.ip_address(text)
        except ValueError:
            return ""  # nothing but an edge is connected here, and it always tells one
        if any(found in network for network in self._exempt):
            return ""
        whole = ipaddress.ip_network((found, NETWORK6), strict=False) if found.version == 6 else found
        return str(whole)
