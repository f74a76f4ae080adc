"""A relay gets what it needs over real SMTP, and what it says decides about the next attempt."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from tests.world import World, world
from ussycode.base.secrets import Secret
from ussycode.mail import ops, store
from ussycode.mail.model import Mail, MailState
from ussycode.mail.relay import Relay, message


@dataclass
class Sink:
    """Takes every mail, or says `answer`."""

    answer: str = ""
    got: list[tuple[str, list[str], bytes]] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.got.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return self.answer or "250 taken"


@pytest.fixture
async def base() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def spool(base: World, subject: str = "Hello") -> None:
    await base.app.db.write(lambda tx: store.post(tx, "a@example.org", subject, "one\n.\nGrüße\n"))


async def delivered(base: World, sink: Sink) -> Mail:
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(sink), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        relay = Relay("127.0.0.1", port, "none", "", Secret(""), "ussycode@vm.example.org")
        await ops.deliver(base.app, relay)
    (mail,) = await base.app.db.read(store.every)
    return mail


async def test_a_mail_arrives_whole(base: World) -> None:
    await spool(base)
    sink = Sink()
    assert (await delivered(base, sink)).state is MailState.SENT
    ((sender, receivers, content),) = sink.got
    assert (sender, receivers) == ("ussycode@vm.example.org", ["a@example.org"])
    assert b"Subject: Hello\r\n" in content and b"Auto-Submitted: auto-generated" in content


async def test_a_passing_trouble_is_tried_again_later_and_a_final_no_is_not(base: World) -> None:
    await spool(base)
    mail = await delivered(base, Sink("451 come back"))
    assert (mail.state, mail.attempts, mail.again_at) == (MailState.WAITING, 1, base.clock.now() + ops.FIRST_RETRY)
    assert (await delivered(base, Sink())).state is MailState.WAITING
    base.clock.advance(ops.FIRST_RETRY)
    mail = await delivered(base, Sink("550 no such person"))
    assert mail.state is MailState.FAILED and "550" in mail.error


async def test_an_absent_relay_loses_nothing(base: World) -> None:
    await spool(base)
    await ops.deliver(base.app, Relay("127.0.0.1", 1, "none", "", Secret(""), "u@example.org"))
    (mail,) = await base.app.db.read(store.every)
    assert mail.state is MailState.WAITING and mail.error


@pytest.mark.parametrize(("to", "subject"), [
    ("a@example.org\r\nBcc: b@example.org", "x"), ("a@example.org", "x\r\nBcc: b@example.org"),
    ("a@example.org, b@example.org", "x"), ("<a@example.org>", "x"),
])
async def test_no_text_becomes_another_header(to: str, subject: str) -> None:
    with pytest.raises(ValueError):
        message(Mail("mail_1", to, subject, "body", 0.0), "u@example.org")
