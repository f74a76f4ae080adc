"""The output of a command in a VM over HTTP: one JSON frame a line, or the bytes as they come."""
from __future__ import annotations

import asyncio
import base64
import signal
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.doors.web.stays import NO_MORE
from ussycode.doors.web.trailers import set_trailers
from ussycode.ports import App, Attach
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.execs import Event, ExecSpec, ExecStream, Exit, ExitSignal, Stderr, Stdout

QUIET_SECONDS = 30.0
"""A command that says nothing for so long makes a blank line, so that nobody on the way gives up."""
HOLD_SECONDS = 1.0
"""Output of a command that ends within this time is sent whole, its status in a header."""
HOLD_BYTES = 256 << 10
"""The most output held for that."""
EXIT_HEADERS = (b"x-ussycode-exit", b"x-exe-exit")
LAST_SECONDS = 1.0
"""Time for the last line of a command that was ended."""
LOST = 255
"""Exit code of a command whose end nobody saw."""

Wait = Callable[[set[asyncio.Task[None]]], Awaitable[bool]]
"""Returns once one of the tasks is done, or True once the command may not go on."""

NO_COMMAND = ErrorCode(
    "exec.no_command", Kind.USAGE, "an interactive shell needs a terminal", hint="add a command: ssh {name} uname -a",
)
NOT_REACHED = ErrorCode(
    "exec.not_reached", Kind.UNAVAILABLE, 'failed to connect to VM "{name}": {why}', hint="try again in a moment"
)


async def attach(app: App, what: Attach, request: Request, counts: Counter[str], key: str, wait: Wait) -> Response:
    """Start the command and stream it. Raises NO_COMMAND, NOT_REACHED or what the guest's agent declares.

    `counts` holds one more of `key` for as long as the stream lives; `wait` tells when it may live no longer.
    """
    program = await _open(app, what)
    if "application/x-ndjson" in request.headers.get("accept", ""):
        return Frames(program, counts, key, wait)
    return Raw(program, counts, key, wait)


async def _open(app: App, what: Attach) -> ExecStream:
    if what.command is None:
        raise NO_COMMAND(name=what.name)
    # `tree`: whoever hangs up ends everything the command started.
    spec = ExecSpec(cmd=what.command, user=what.user, tree=True, login=True)
    try:
        return await app.link.open_exec(what.vm, spec)
    except Failure as failure:
        if failure.error in (errors.NO_USER, errors.NO_SHELL, errors.BAD_REQUEST, errors.BUSY):
            raise
        raise NOT_REACHED(name=what.name, why=failure.sentence).because(failure.detail) from None


async def run_whole(app: App, what: Attach, limit: int) -> dict[str, object]:
    """Run the command to its end: `stdout` and `stderr` as text, `exit_code`; `truncated` beyond `limit` bytes.

    Raises like `attach`, and GONE when the guest was lost on the way.
    """
    program = await _open(app, what)
    said = {"stdout": bytearray(), "stderr": bytearray()}
    status, cut = LOST, False
    try:
        async for event in program:
            if isinstance(event, Exit | ExitSignal):
                status = _status(event)
                continue
            kept = said["stdout" if isinstance(event, Stdout) else "stderr"]
            room = limit - sum(map(len, said.values()))
            kept += event.data[:room]
            cut = cut or len(event.data) > room
    finally:
        await program.close()
    made: dict[str, object] = {name: bytes(data).decode(errors="replace") for name, data in said.items()}
    return made | {"exit_code": status} | ({"truncated": True} if cut else {})


class Streamed(Response, ABC):
    """A response that lives as long as a program, and ends it when the client goes away."""

    def __init__(self, program: ExecStream, counts: Counter[str], key: str, wait: Wait) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.program = program
        self.why = ""
        """What ended it before its command did; empty for whatever the guest says."""
        self._wait = wait
        self._counts = counts
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; returns when the program has ended or the client is gone."""
        self._counts[self._key] += 1
        sending = asyncio.create_task(self._send(scope, send))
        watching = asyncio.create_task(_gone(receive))
        try:
            if await self._wait({sending, watching}):
                self.why = NO_MORE
                await self.program.close()
                await asyncio.wait({sending, watching}, timeout=LAST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            sending.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            await self.program.close()
            release(self._counts, self._key)
        if not sending.cancelled():
            sending.result()

    @abstractmethod
    async def _send(self, scope: Scope, send: Send) -> None:
        ...


class Frames(Streamed):
    """`{"stdout": base64}` and `{"stderr": base64}` a line, `{"exit_code": N}` or `{"error": why}` last."""

    async def _send(self, scope: Scope, send: Send) -> None:
        self.headers["content-type"] = "application/x-ndjson"
        self.headers["x-accel-buffering"] = "no"
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last: dict[str, object] = {}
        try:
            async for event in _with_pauses(self.program):
                if isinstance(event, Exit | ExitSignal):
                    last = {"exit_code": _status(event)}
                else:
                    line = b"\n" if event is None else _line(event)
                    await send({"type": "http.response.body", "body": line, "more_body": True})
        except Failure as failure:
            last = {"error": self.why or failure.sentence}
        line = msgspec.json.encode(last or {"error": self.why or errors.GONE().sentence}) + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": False})


class Raw(Streamed):
    """Both outputs as they come. The exit code is a header when the command is short, else a trailer."""

    async def _send(self, scope: Scope, send: Send) -> None:
        self.headers["content-type"] = "application/octet-stream"
        held, events = bytearray(), _with_pauses(self.program, HOLD_SECONDS)
        held_until = asyncio.get_running_loop().time() + HOLD_SECONDS
        async for event in events:
            if isinstance(event, Exit | ExitSignal):
                await self._whole(bytes(held), _status(event), send)
                return
            if event is None:
                break
            held += event.data
            if len(held) > HOLD_BYTES or asyncio.get_running_loop().time() > held_until:
                break
        await self._rest(bytes(held), events, scope, send)

    async def _whole(self, held: bytes, status: int, send: Send) -> None:
        told = [(name, b"%d" % status) for name in EXIT_HEADERS]
        headers = [*self.raw_headers, *told, (b"content-length", b"%d" % len(held))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": held, "more_body": False})

    async def _rest(self, held: bytes, events: AsyncIterator[Event | None], scope: Scope, send: Send) -> None:
        headers = [*self.raw_headers, (b"trailer", b", ".join(EXIT_HEADERS))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": held, "more_body": True})
        try:
            await self._until_end(events, scope, send)
        except Failure:
            return  # the body is left without its end, so that the client knows it is not whole

    async def _until_end(self, events: AsyncIterator[Event | None], scope: Scope, send: Send) -> None:
        async for event in events:
            if isinstance(event, Exit | ExitSignal):
                set_trailers(scope, [(name, b"%d" % _status(event)) for name in EXIT_HEADERS])
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif event is not None:
                await send({"type": "http.response.body", "body": event.data, "more_body": True})


async def _with_pauses(program: ExecStream, seconds: float = QUIET_SECONDS) -> AsyncIterator[Event | None]:
    """The program's events, and None whenever it was quiet for `seconds`."""
    events = aiter(program)
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=seconds)
            if not done:
                yield None
                continue
            event = coming.result()
            if event is None:
                return
            yield event
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def release(counts: Counter[str], key: str) -> None:
    """One less of `key`; keys without any are forgotten."""
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


def _line(event: Stdout | Stderr) -> bytes:
    name = "stdout" if isinstance(event, Stdout) else "stderr"
    return b'{"%b":"%b"}\n' % (name.encode(), base64.b64encode(event.data))


def _status(event: Exit | ExitSignal) -> int:
    """The exit code; 128 and the signal's number, as a shell has it, when a signal ended the command."""
    return event.status if isinstance(event, Exit) else 128 + signal.Signals[f"SIG{event.name}"]
