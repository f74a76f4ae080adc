"""Tokens that visitors show on the host of a VM: found in the head, checked by control, remembered here."""
from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import OrderedDict
from collections.abc import Collection

from ussycode.base.clock import Clock
from ussycode.doors.edge.feed import Questions
from ussycode.wire.edge import CheckToken, EdgeToken

MAX_KEPT = 4096
"""Tokens remembered; the one unused for longest goes first."""
REFUSED_SECONDS = 10.0
"""How long a refusal is remembered: a client that repeats a bad token does not keep control busy."""
CHECK_SECONDS = 5.0
"""How long control may take to check a token."""
MARK = b"\0"
"""In front of a token where a cookie's secret may stand too; no secret begins with it."""
_OURS = re.compile(rb"(?:usy|exe)[01]\.[A-Za-z0-9_.-]{1,8187}").fullmatch


def token_of(authorization: bytes) -> bytes | None:
    """The platform's token in an Authorization value, or None for a credential that is the app's own business."""
    scheme, _, value = authorization.partition(b" ")
    value = value.strip(b" \t")
    if scheme.lower() == b"bearer":
        return value if _OURS(value) else None
    if scheme.lower() != b"basic":
        return None
    try:
        _, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon and _OURS(password) else None


class Tokens:
    """What control said of tokens, by the VM's name and the token's digest."""

    def __init__(self, questions: Questions, clock: Clock) -> None:
        self._questions = questions
        self._clock = clock
        self._kept: OrderedDict[tuple[str, bytes], tuple[EdgeToken, float]] = OrderedDict()

    def get(self, name: str, token: bytes) -> EdgeToken | None:
        """What is known of a token; None when control must be asked, also when its time has come."""
        found = self._kept.get((name, _digest(token)))
        if found is None:
            return None
        known, until = found
        return known if self._clock.now() < until else None

    async def ask(self, name: str, token: bytes) -> EdgeToken:
        """Have control check a token. Raises Unanswered when it does not answer in time."""
        text = token.decode("ascii")
        answer = await self._questions.ask(lambda number: CheckToken(number, name, text), CHECK_SECONDS)
        assert isinstance(answer, EdgeToken)
        life = answer.expires or float("inf")
        until = self._clock.now() + REFUSED_SECONDS if answer.refused else life
        self._kept[name, _digest(token)] = (answer, until)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return answer

    def forget(self, users: Collection[str]) -> None:
        """Tokens of these accounts must be checked again; refusals too, since something may be allowed now."""
        gone = [key for key, (known, _) in self._kept.items() if known.user in users or known.refused]
        for key in gone:
            del self._kept[key]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
