"""One SMTP connection: the library reads commands, and what it leaves open or to chance is decided here."""
from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from ussycode.base.clock import utc
from ussycode.base.networks import Clients
from ussycode.doors.smtp import replies
from ussycode.doors.smtp.coming import Coming
from ussycode.doors.smtp.limits import (
    MAX_BYTES,
    MAX_COMMANDS,
    MAX_LINE,
    MAX_RECIPIENTS,
    Admission,
    Held,
    Patience,
)
from ussycode.doors.smtp.tls import Certificate
from ussycode.inbox.model import Mail, Outcome, Recipient
from ussycode.inbox.ops import Inbox
from ussycode.ports import App
from ussycode.tokens.rate import Buckets

NAME = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
"""What a client may call itself."""
PATH = re.compile(r"<(?:@[!-9;-=?-~]+:)?([!-;=?-~]{0,320})>(?: +(.*))?")
"""An address in angle brackets, behind a route that nobody needs any more, and parameters."""
COMMANDS = frozenset({"HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "STARTTLS", "VRFY"})
WAKING = 60.0
"""Seconds that a delivery may take beside the boot of a machine that is woken for it."""


@dataclass
class Shared:
    """What the connections of one door have in common."""

    app: App
    inbox: Inbox
    certificate: Certificate
    patience: Patience
    clients: Clients
    paces: Buckets
    admission: Admission
    held: Held
    connections: set[Connection] = field(default_factory=set)


class Connection(SMTP):
    """Speaks with one client."""

    line_length_limit = MAX_LINE

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._peer = self._key = ""
        self._let_in = False
        self._until = 0.0
        self._to: dict[str, Recipient] = {}
        super().__init__(
            _Hooks(shared), data_size_limit=MAX_BYTES, hostname=shared.app.config.domain, ident="ESMTP",
            tls_context=shared.certificate.context(), timeout=shared.patience.command,
            command_call_limit=MAX_COMMANDS, loop=asyncio.get_running_loop(),
        )
        self._smtp_methods = {name: method for name, method in self._smtp_methods.items() if name in COMMANDS}

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._original_transport is None:  # else it is the same one, encrypted from now on
            made = cast(asyncio.Transport, transport)
            self._peer = _address(made)
            self._key = self._shared.clients.key(self._peer)
            if not self._shared.admission.enter(self._key):
                made.write(replies.TOO_MANY_CONNECTIONS.encode() + b"\r\n")
                made.close()
                return
            made.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # replies are small
            self._let_in = True
            self._shared.connections.add(self)
            self._until = self.loop.time() + self._shared.patience.connection
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._let_in:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        return super().eof_received() if self._let_in else None

    def connection_lost(self, error: Exception | None) -> None:
        if self._let_in:
            self._let_in = False
            self._shared.admission.leave(self._key)
            self._shared.connections.discard(self)
            super().connection_lost(error)

    def end(self) -> None:
        """Hang up at once."""
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Without `duration`: for the next command, and no longer than the connection may last."""
        left = max(0.001, self._until - self.loop.time())
        super()._reset_timeout(min(self._shared.patience.command, left) if duration is None else duration)

    def _timeout_cb(self) -> None:
        transport = cast(asyncio.Transport | None, self.transport)
        if transport is not None:
            transport.write(replies.TIMED_OUT.encode() + b"\r\n")
            transport.close()
            # Who does not even read that, or left amid a handshake, is not waited for either.
            self.loop.call_later(self._shared.patience.goodbye, self._give_up, transport)

    def _give_up(self, transport: asyncio.Transport) -> None:
        transport.abort()
        self.connection_lost(None)

    # Commands

    async def smtp_HELO(self, hostname: str) -> None:
        await self._hello(hostname, [])

    async def smtp_EHLO(self, hostname: str) -> None:
        secure = ["STARTTLS"] if self._tls_protocol is None else []
        await self._hello(hostname, ["PIPELINING", f"SIZE {MAX_BYTES}", "8BITMIME", *secure])

    async def _hello(self, hostname: str | None, offers: list[str]) -> None:
        if not NAME.fullmatch(hostname or ""):
            await self.push(replies.BAD_NAME)
            return
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self._now().extended_smtp = bool(offers)
        self._now().host_name = hostname
        lines = [self.hostname, *offers]
        await self.push("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

    async def smtp_STARTTLS(self, arg: str) -> None:
        if self._tls_protocol is None:
            await super().smtp_STARTTLS(arg)
        else:
            await self.push(replies.SECURE_ALREADY)

    async def smtp_VRFY(self, arg: str) -> None:
        await self.push(replies.NO_VERIFYING)

    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        if not self._to or arg:
            await self.push(replies.NO_ARGUMENT if arg else replies.NO_RECIPIENT)
            return
        await self.push(replies.GO_AHEAD)
        self._reset_timeout(self._shared.patience.mail)
        coming = Coming(self._shared.held)
        try:
            await coming.read(self._reader)
            self._reset_timeout(self._shared.app.config.boot_timeout + WAKING + self._shared.patience.mail)
            reply = coming.refusal or await self._deliver(coming.content)
        finally:
            coming.forget()
        self._reset_timeout()
        self._set_post_data_state()
        await self.push(reply)
        if reply == replies.BARE_LINE_END:  # whoever sent it may not know what it is in the midst of
            cast(asyncio.Transport, self.transport).close()

    async def _deliver(self, content: bytearray) -> str:
        assert self.envelope is not None
        sender = "" if self.envelope.mail_from == "<>" else self.envelope.mail_from or ""
        mail = Mail(sender, self._trace(sender), content)
        return replies.OF_MAIL[await self._shared.inbox.deliver(mail, list(self._to.values()))]

    def _trace(self, sender: str) -> bytes:
        way = f"from {self._now().host_name} ([{self._peer}]) by {self.hostname}"
        how = "ESMTPS" if self._tls_protocol is not None else "ESMTP"
        date = format_datetime(utc(int(self._shared.app.clock.now())))
        return f"Return-Path: <{sender}>\nReceived: {way} with {how}; {date}\n".encode()

    def take(self, recipient: Recipient) -> None:
        """Somebody more who gets the mail; the same address twice gets one."""
        self._to[recipient.address] = recipient

    @property
    def recipients(self) -> Mapping[str, Recipient]:
        """Who gets the mail so far, by address."""
        return self._to

    @property
    def payer(self) -> str:
        """What the client is counted by; empty for one without limits."""
        return self._key

    def _now(self) -> Session:  # no property: the library reads every attribute before there is one
        assert self.session is not None
        return self.session

    def _set_post_data_state(self) -> None:
        super()._set_post_data_state()  # type: ignore[no-untyped-call]
        self._to = {}

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Address and parameters; the library's own reader of addresses takes more than mail needs, and breaks."""
        found = PATH.fullmatch(arg.strip())
        return (found[1] or "<>", found[2] or "") if found is not None else (None, None)


class _Hooks:
    """What the library asks about senders, recipients and what breaks."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def handle_MAIL(
        self, server: Connection, session: Session, envelope: Envelope, address: str, options: list[str],
    ) -> str:
        if server.payer and self._shared.paces.take(server.payer):
            return replies.TOO_MANY_MAILS
        envelope.mail_from = address
        return replies.OK

    async def handle_RCPT(
        self, server: Connection, session: Session, envelope: Envelope, address: str, options: list[str],
    ) -> str:
        if len(server.recipients) >= MAX_RECIPIENTS:
            return replies.TOO_MANY_RECIPIENTS
        found = await self._shared.inbox.accept(address)
        if isinstance(found, Recipient):
            server.take(found)
            return replies.OF_RECIPIENT[Outcome.TAKEN]
        self._shared.app.telemetry.event(f"inbox.refused.{found}")
        if server.payer:
            self._shared.paces.take(server.payer)
        return replies.OF_RECIPIENT[found]

    async def handle_exception(self, error: Exception) -> str:
        self._shared.app.telemetry.log.error("an SMTP command failed", exc_info=error)
        return replies.BROKEN


def _address(transport: asyncio.Transport) -> str:
    peer: Any = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""
