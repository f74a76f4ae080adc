"""How often one address may try to sign in: guessing codes and filling other people's mail boxes takes many tries."""
from __future__ import annotations

from starlette.requests import Request

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.networks import Clients
from ussycode.ports import App
from ussycode.tokens.rate import Buckets

SIGN_INS_PER_MINUTE = 30
"""Forms that one address may send below /login; a sixth of them at once. An office behind one address shares it."""
TOO_MANY_SIGN_INS = ErrorCode(
    "http.too_many_sign_ins", Kind.TOO_MANY, "too many attempts to sign in from your address", hint="wait a moment",
)


class SignInPace:
    """One token bucket for each address, as the edge tells it; `limit_exempt` has none."""

    def __init__(self, app: App) -> None:
        self._buckets = Buckets.per_minute(app.clock, SIGN_INS_PER_MINUTE)
        self._clients = Clients(app.config.limit_exempt)

    def require(self, request: Request) -> None:
        """Nothing, or TOO_MANY_SIGN_INS with the seconds to wait."""
        if request.method != "POST" or not request.scope["path"].startswith("/login/"):
            return
        # Nothing but an edge is connected here, and it always tells an address.
        key = self._clients.key(request.headers.get("x-forwarded-for", ""))
        if key and (wait := self._buckets.take(key)):
            failure = TOO_MANY_SIGN_INS()
            failure.retry_after = wait
            raise failure
