"""`POST /exec`: a token, a line of words, the one dispatch, JSON."""
from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ussycode.access.facts import Caller
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.cmdline import lex
from ussycode.cmdline.render import failure_document
from ussycode.dispatch import Call, Outcome, run
from ussycode.doors.web import body
from ussycode.doors.web.asked import Asked
from ussycode.doors.web.download import Sent
from ussycode.doors.web.piped import Piped
from ussycode.doors.web.stays import Stays
from ussycode.doors.web.stream import NOT_REACHED, attach, release
from ussycode.ports import App
from ussycode.tokens.rate import Buckets
from ussycode.tokens.verify import TokenVerifier

RUN_SECONDS = 30.0
"""How long a client waits for a command; the command itself goes on."""
MAKING = ("new", "cp")
MAKING_TIMES = 11
"""So many times as long it waits for a VM: an image may have to be pulled, or a large disk copied, first."""
MAX_AT_ONCE = 256
"""Commands and streams of one key that run at the same time."""
RICH = "application/vnd.ussycode+json"

NOT_POST = ErrorCode("exec.not_post", Kind.BAD_REQUEST, "send the command line with POST", hint="curl -d whoami …/exec")
EMPTY = ErrorCode("exec.empty", Kind.BAD_REQUEST, "the body is empty; it is a command line", hint="curl -d whoami …")
NOT_TEXT = ErrorCode("exec.not_text", Kind.BAD_REQUEST, "the body is not UTF-8 text without NUL bytes")
SLOW = ErrorCode(
    "exec.slow", Kind.TIMEOUT, "{command} takes longer than {seconds} s; it goes on, only this answer ends",
    hint="ls shows what came of it",
)
RATE = ErrorCode("exec.rate", Kind.TOO_MANY, "too many requests for this key; nothing was run", hint="wait, then retry")


@dataclass
class ExecDoor:
    """Answers `/exec`. Commands that outlive their answer are kept here until they end."""

    app: App
    tokens: TokenVerifier
    seconds: float
    _running: set[asyncio.Task[Outcome]] = field(default_factory=set)
    _by_key: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.stays = Stays(self.app, self.tokens)
        self._buckets = Buckets.per_minute(self.app.clock, self.app.config.exec_rate)

    async def answer(self, request: Request, asked: Asked) -> Response:
        """The response to one request; always JSON, but for the output of a command in a VM."""
        rich = RICH in request.headers.get("accept", "") or request.query_params.get("v") == "1"
        if request.method != "POST":
            return refusal(NOT_POST(), asked.request_id, rich, 405)
        try:
            token = bearer(request)
            caller = await self.tokens.verify(token)
            self._require_rate(caller.key)
            words = _words(await body.read(request, lex.MAX_LINE))
            outcome = await self._run(Call(caller, words, "exec", json=True, request_id=asked.request_id))
            if outcome.attach is not None:
                wait = partial(self.stays.wait, outcome.attach, token)
                return await attach(self.app, outcome.attach, request, self._by_key, caller.key, wait)
        except Failure as failure:
            return refusal(failure, asked.request_id, rich)
        if outcome.download is not None:
            return Sent(outcome.download, self._by_key, caller.key)
        if outcome.failure is not None:
            return refusal(outcome.failure, asked.request_id, rich)
        assert outcome.view is not None
        return json_response(outcome.view.document())

    async def upload(self, request: Request, asked: Asked, name: str) -> Response:
        """`PUT /import/NAME?OPTION=VALUE`: the command `import` with the body as what is piped into it."""
        try:
            caller = await self.tokens.verify(bearer(request))
            self._require_rate(caller.key)
            options = [f"--{key}={value}" if value else f"--{key}" for key, value in request.query_params.multi_items()]
            talk = Piped(request)
            call = Call(caller, ("import", name, *options), "exec", json=True, talk=talk, request_id=asked.request_id)
            task = asyncio.create_task(run(self.app, call))
            self._count(task, caller)
            outcome = await asyncio.shield(task)
        except Failure as failure:
            return refusal(failure, asked.request_id)
        if outcome.failure is not None:
            return refusal(outcome.failure, asked.request_id)
        assert outcome.view is not None
        return json_response(outcome.view.document())

    async def execute(self, caller: Caller, words: Sequence[str], request_id: str, via: str) -> Outcome:
        """Run words that came through another way in, under the same limits. Raises RATE, SLOW or NOT_REACHED."""
        self._require_rate(caller.key)
        return await self._run(Call(caller, words, via, json=True, request_id=request_id))

    def _require_rate(self, key: str) -> None:
        wait = self._buckets.take(key)
        if wait or self._by_key[key] >= MAX_AT_ONCE:
            limited = RATE()
            limited.retry_after = wait or 1.0
            raise limited

    async def _run(self, call: Call) -> Outcome:
        task = asyncio.create_task(run(self.app, call))
        self._count(task, call.caller)
        seconds = self.seconds * (MAKING_TIMES if call.words[0] in MAKING else 1)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise self._late(call, task, seconds)
        return task.result()

    def _late(self, call: Call, task: asyncio.Task[Outcome], seconds: float) -> Failure:
        if call.words[0] != "ssh":
            return SLOW(command=call.words[0], seconds=f"{seconds:g}")
        # It only waited for the VM; clients try again when they read that it could not be reached.
        task.cancel()
        return NOT_REACHED(name=_vm_of(call.words), why="it is still starting")

    def _count(self, task: asyncio.Task[Outcome], caller: Caller) -> None:
        def ended(task: asyncio.Task[Outcome]) -> None:
            self._running.discard(task)
            release(self._by_key, caller.key)

        self._running.add(task)
        self._by_key[caller.key] += 1
        task.add_done_callback(ended)


def refusal(failure: Failure, request_id: str, rich: bool = False, status: int = 0) -> Response:
    """A failure as JSON with its status (or `status`); one key `error` unless `rich`."""
    made = json_response(failure_document(failure, request_id, rich), status or failure.kind.status)
    if failure.kind is Kind.UNAUTHENTICATED:
        made.headers["WWW-Authenticate"] = "Bearer"
    if failure.retry_after is not None:
        made.headers["Retry-After"] = str(math.ceil(failure.retry_after))
    if status == 405:
        made.headers["Allow"] = "POST"
    return made


def json_response(document: object, status: int = 200) -> Response:
    """One JSON document and a line feed."""
    return Response(msgspec.json.encode(document) + b"\n", status, media_type="application/json")


def bearer(request: Request) -> str:
    """The token of the Authorization header; empty without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _vm_of(words: Sequence[str]) -> str:
    named = next((w for w in words[1:] if not w.startswith("-")), "")
    return named.rpartition("@")[2]


def _words(raw: bytes) -> tuple[str, ...]:
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        raise NOT_TEXT() from None
    if "\0" in line:
        raise NOT_TEXT()
    words = lex.split(line)
    if not words:
        raise EMPTY()
    return words
