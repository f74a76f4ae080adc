"""Whose token it is and what it may do; good ones are remembered until something about them changes."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ussycode.access.facts import Caller, Via
from ussycode.base.db import Tx
from ussycode.base.errors import Failure
from ussycode.base.events import Event
from ussycode.identity import ops as identity
from ussycode.identity import store as accounts
from ussycode.identity.keys import fingerprint
from ussycode.ports import App
from ussycode.tokens import refusals, signed, sshsig, store
from ussycode.tokens.model import Handle
from ussycode.tokens.payload import Payload
from ussycode.tokens.rate import Buckets
from ussycode.wire.edge import CheckToken, EdgeToken

CHANGES = frozenset({"key.removed", "key.tagged", "token.revoked"})
"""Events after which a token may mean less."""
MAX_TOKEN = 8192
"""Characters of a whole token."""
MAX_KEPT = 4096
"""Good tokens remembered; the one unused for longest goes first."""
NEW_PER_MINUTE = 6000
"""Signatures checked a minute for one key: a check costs up to a millisecond, and public keys are public."""


@dataclass(frozen=True)
class Verified:
    """A good token. Its times are checked at every use; `subject` is what its use is noted under."""

    caller: Caller
    payload: Payload
    subject: str


@dataclass(frozen=True)
class Place:
    """Where a token is shown: the API, or the host of one VM."""

    namespace: str
    vm: str = ""
    """Id of the VM; empty for the API. A VM that does not exist has an id that no handle names."""


@dataclass
class TokenVerifier:
    """Turns tokens into callers. Register `heard` with the database, so that a removed key bites at once."""

    app: App
    _kept: OrderedDict[tuple[str, Place], Verified] = field(default_factory=OrderedDict)
    _drops: int = 0

    def __post_init__(self) -> None:
        self._new = Buckets.per_minute(self.app.clock, NEW_PER_MINUTE)
        self.api = Place(f"v0@{self.app.config.domain}")

    async def heard(self, events: Sequence[Event]) -> None:
        """Forget the tokens of accounts that changed."""
        users = {e.subject for e in events if e.kind in CHANGES or e.kind.startswith("user.")}
        if not users:
            return
        self._drops += 1
        for key in [k for k, v in self._kept.items() if v.caller.user in users]:
            del self._kept[key]

    async def verify(self, token: str) -> Caller:
        """The caller behind a token of the API, limited to its commands. Raises one of `refusals`."""
        return (await self.check(token, self.api)).caller

    async def for_edge(self, question: CheckToken, vm: str) -> EdgeToken:
        """The holder of a token shown on the host of a VM (`vm` is its id, empty when there is none)."""
        place = Place(f"v0@{question.name}.{self.app.config.domain}", vm or "none")
        try:
            found = await self.check(question.token, place)
        except Failure as failure:
            return EdgeToken(question.number, refused=failure.code, sentence=failure.sentence)
        payload = found.payload
        return EdgeToken(
            question.number, found.caller.user, payload.ctx, payload.nbf or 0, payload.exp or 0, tag=found.caller.tag
        )

    async def check(self, token: str, place: Place) -> Verified:
        """A good token shown at `place`. Raises one of `refusals`, each counted by its code."""
        try:
            found = await self._check(token, place)
        except Failure as failure:
            self.app.telemetry.token(failure.code)
            self.app.telemetry.log.info("token refused", code=failure.code, place=place.namespace)
            raise
        self.app.telemetry.token("ok")
        self.app.uses.note(found.subject)
        return found

    async def _check(self, token: str, place: Place) -> Verified:
        if not token:
            raise refusals.MISSING()
        if len(token) > MAX_TOKEN:
            raise refusals.TOO_LONG(limit=MAX_TOKEN)
        digest = signed.digest(token)
        found = self._kept.get((digest, place))
        if found is None:
            drops = self._drops
            look = self._handle if token.startswith(signed.HANDLE_PREFIX) else self._signed
            found = await look(token, digest, place)
            self._keep(digest, place, found, drops)
        else:
            self._kept.move_to_end((digest, place))
        self._require_time(found.payload)
        return found

    async def _handle(self, token: str, digest: str, place: Place) -> Verified:
        found = await self.app.db.read(lambda tx: _holder(tx, digest, place.namespace))
        if found is None:
            raise refusals.UNKNOWN()
        handle, caller = found
        if handle.vm != place.vm:
            raise refusals.NAMESPACE(namespace=place.namespace)
        payload = signed.payload(handle.payload.encode())
        return Verified(_limited(caller, payload, handle.tag), payload, f"handle:{handle.id}")

    async def _signed(self, token: str, digest: str, place: Place) -> Verified:
        raw, blob = signed.parts(token)
        sig = signed.read(blob, place.namespace)
        key = fingerprint(sig.key)
        said = signed.statement(raw, key, place.namespace)
        found, revoked = await self.app.db.read(
            lambda tx: (identity.who(tx, key, Via.TOKEN), store.is_revoked(tx, said, digest))
        )
        if found is None:
            raise refusals.KEY(key=key)
        self._require_rate(key)
        _verify(sig, place.namespace, raw)
        if revoked:
            raise refusals.REVOKED()
        payload = signed.payload(raw)
        return Verified(_limited(found[0], payload), payload, f"key:{key}")

    def _require_rate(self, key: str) -> None:
        if wait := self._new.take(key):
            limited = refusals.RATE()
            limited.retry_after = wait
            raise limited

    def _keep(self, digest: str, place: Place, found: Verified, drops: int) -> None:
        # When something was removed while this one was looked up, it counts once more and is not remembered.
        if drops != self._drops or self._over(found.payload):
            return
        self._kept[digest, place] = found
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def _over(self, payload: Payload) -> bool:
        return payload.exp is not None and payload.exp <= self.app.clock.now()

    def _require_time(self, payload: Payload) -> None:
        if self._over(payload):
            raise refusals.EXPIRED()
        if payload.nbf is not None and self.app.clock.now() < payload.nbf:
            raise refusals.EARLY()


def _verify(sig: sshsig.SshSig, namespace: str, raw: bytes) -> None:
    try:
        sshsig.verify(sig, namespace, raw)
    except sshsig.OtherNamespace:
        raise refusals.NAMESPACE(namespace=namespace) from None
    except ValueError as why:
        raise refusals.SIGNATURE(why=why, namespace=namespace) from None


def _limited(caller: Caller, payload: Payload, tag: str = "") -> Caller:
    return replace(caller, via=Via.TOKEN, commands=payload.commands, expires=payload.exp, tag=tag or caller.tag)


def _holder(tx: Tx, digest: str, namespace: str) -> tuple[Handle, Caller] | None:
    """A handle and whom it speaks for; None when it, its account, its SSH key or its signed token is gone."""
    handle = store.by_digest(tx, digest)
    if handle is None or store.is_revoked(tx, signed.statement(handle.payload.encode(), handle.key, namespace)):
        return None
    if handle.key:
        found = identity.who(tx, handle.key, Via.TOKEN)
        return None if found is None or found[1].id != handle.user else (handle, found[0])
    user = accounts.user_by(tx, "id", handle.user)
    return None if user is None else (handle, identity.caller_of(user, Via.TOKEN, handle.fingerprint))
