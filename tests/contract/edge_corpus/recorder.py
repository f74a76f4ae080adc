"""An app that keeps every byte it gets, and three readers of those bytes that know nothing of each other."""
from __future__ import annotations

import asyncio
import re

import h11
import httptools

Read = tuple[str, str, bytes]
"""Method, target and body of one whole request."""
MAX_HEAD = 1 << 20


class Recorder:
    """Answers each whole request with its own target, `/refuses` with 426; `streams` holds what came, by connection."""

    def __init__(self) -> None:
        self.streams: list[bytearray] = []
        self.ended = 0
        """Connections that the edge has ended."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from the edge."""
        stream = bytearray()
        self.streams.append(stream)
        said = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            while data := await reader.read(1 << 16):
                stream += data
                said.receive_data(data)
                self._answer(said, writer)
        except (ConnectionError, h11.RemoteProtocolError):
            pass
        finally:
            self.ended += 1
            writer.close()

    def _answer(self, said: h11.Connection, writer: asyncio.StreamWriter) -> None:
        target = b""
        while (event := said.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                target = event.target
            elif isinstance(event, h11.EndOfMessage):
                self._say(said, writer, target)

    def _say(self, said: h11.Connection, writer: asyncio.StreamWriter, target: bytes) -> None:
        status = 426 if target == b"/refuses" else 200
        head = h11.Response(status_code=status, headers=[("Content-Length", "2")])
        for event in (head, h11.Data(b"ok"), h11.EndOfMessage()):
            writer.write(said.send(event) or b"")
        if said.our_state is h11.DONE and said.their_state is h11.DONE:
            said.start_next_cycle()

    def read(self) -> list[Read]:
        """The whole requests that came. Raises AssertionError when the three readers disagree."""
        found: list[Read] = []
        for stream in self.streams:
            raw = bytes(stream)
            strict, common, loose = by_h11(raw), by_llhttp(raw), by_the_sloppiest(raw)
            assert strict == common == loose, (strict, common, loose, raw)
            found += strict
        return found

    @property
    def heads(self) -> bytes:
        """All that came, in lower case."""
        return b"".join(map(bytes, self.streams)).lower()


def by_h11(raw: bytes) -> list[Read]:
    """As h11 reads it."""
    found: list[Read] = []
    said = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    said.receive_data(raw)
    request, body = h11.Request(method="GET", target="/", headers=[("Host", "x")]), b""
    try:
        while (event := said.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                found.append((request.method.decode(), request.target.decode(), body))
                said.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                said.send(h11.EndOfMessage())
                if said.our_state is not h11.DONE:  # HTTP/1.0: nothing further counts on this connection
                    return found
                said.start_next_cycle()
    except h11.RemoteProtocolError as error:
        found.append(("UNREADABLE", str(error), raw))
    return found


class _Llhttp:
    def __init__(self) -> None:
        self.found: list[Read] = []
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.body = b"", b""

    def on_message_begin(self) -> None:
        self.url, self.body = b"", b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_method().decode(), self.url.decode(), self.body))


def by_llhttp(raw: bytes) -> list[Read]:
    """As llhttp reads it, the parser of Node."""
    found: list[Read] = []
    while raw:
        reader = _Llhttp()
        try:
            reader.parser.feed_data(raw)
            raw = b""
        except httptools.HttpParserUpgrade as upgrade:
            raw = raw[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            return [*found, *reader.found, ("UNREADABLE", str(error), raw)]
        found += reader.found
    return found


def by_the_sloppiest(raw: bytes) -> list[Read]:
    """As the most careless app would: any line end, any spelling of a name, chunked wherever the word stands."""
    found: list[Read] = []
    while (end := re.search(rb"\r?\n\r?\n", raw)) is not None:
        lines = re.split(rb"\r\n|\n|\r", raw[: end.start()])
        words = [*lines[0].split(), b"", b""][:2]
        fields = [
            (re.sub(rb"[^a-z0-9]", b"-", name.strip().lower()), value.strip())
            for name, _, value in (line.partition(b":") for line in lines[1:])
        ]
        whole = _sloppy_body(raw[end.end() :], fields)
        if whole is None:
            return found
        body, raw = whole
        found.append((words[0].decode("latin-1"), words[1].decode("latin-1"), body))
    return found


def _sloppy_body(rest: bytes, fields: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
    """The body and what follows it; None when it is not whole."""
    if any(name == b"transfer-encoding" and b"chunked" in value.lower() for name, value in fields):
        return _sloppy_chunks(rest)
    length = next((int(value) for name, value in reversed(fields) if name == b"content-length"), 0)
    return (rest[:length], rest[length:]) if len(rest) >= length else None


def _sloppy_chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\n")
        if not end:
            return None
        size = int(line.split(b";")[0].strip() or b"0", 16)
        if size == 0:
            break
        body, rest = body + rest[:size], rest[size:].removeprefix(b"\r").removeprefix(b"\n")
    while True:
        line, end, rest = rest.partition(b"\n")
        if not end:
            return None
        if not line.strip():
            return body, rest
