"""What clients of the SMTP door may say, and what a hostile one gets for it: an answer, and no more than its share."""
from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiosmtplib
import pytest

from tests.product.mail_world import MailWorld, Smtp, mail_world, new
from ussycode.doors.smtp import replies
from ussycode.doors.smtp.limits import (
    MAILS_PER_HOUR,
    MAX_BYTES,
    MAX_COMMANDS,
    MAX_CONNECTIONS,
    MAX_HELD,
    MAX_LINE,
    MAX_PER_ADDRESS,
    MAX_RECIPIENTS,
    Admission,
    Patience,
)

TO = "any@demo.localhost"
FROM = ("EHLO client.example", "MAIL FROM:<a@example.org>", f"RCPT TO:<{TO}>")
SOON = 0.3
"""Seconds until something is over in tests that wait for it."""


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[MailWorld]:
    async with mail_world(guest_program, tmp_path) as made:
        yield made


@pytest.fixture
async def home(place: MailWorld) -> Path:
    return await place.vm("demo")


async def data(client: Smtp, content: bytes) -> str:
    """The reply to a mail of exactly these bytes."""
    assert (await client.say(*FROM, "DATA")).startswith("354")
    client.writer.write(content)
    return await client.reply()


async def at_rest(place: MailWorld) -> None:
    """Nothing is connected and nothing is held."""
    shared = place.door.shared
    async with asyncio.timeout(20):
        while shared.admission.open or shared.connections or shared.held.size:
            await asyncio.sleep(0.01)
    assert shared.admission == Admission()


async def test_a_real_client_over_tls_with_eight_bits(place: MailWorld, home: Path) -> None:
    sent = "From: a@example.org\r\nSubject: gr\u00fc\u00dfe\r\n\r\n\u20ac 5\r\n.\r\n..\r\n".encode()
    async with aiosmtplib.SMTP(
        hostname="127.0.0.1", port=place.port, start_tls=False, local_hostname="client.example",
    ) as client:
        await client.ehlo()
        assert client.esmtp_extensions == {
            "pipelining": "", "size": str(MAX_BYTES), "8bitmime": "", "starttls": "",
        }
        await client.starttls(server_hostname="localhost", tls_context=place.tls)
        await client.ehlo()
        assert "starttls" not in client.esmtp_extensions and not client.supported_auth_methods
        await client.sendmail("", [TO], sent, mail_options=["BODY=8BITMIME"])
    (mail,) = new(home)
    assert b"\nReturn-Path: <>\nReceived: from client.example ([127.0.0.1]) by localhost with ESMTPS; " in mail
    assert mail.endswith(b"\n" + sent.replace(b"\r\n", b"\n"))
    await at_rest(place)


async def test_what_was_said_before_encryption_counts_for_nothing(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    client.writer.write(b"EHLO client.example\r\nSTARTTLS\r\nMAIL FROM:<a@example.org>\r\n")
    await client.reply()
    assert (await client.reply()).startswith("220")
    await client.writer.start_tls(place.tls, server_hostname="localhost")
    assert (await client.say("MAIL FROM:<a@example.org>")).startswith("503")
    assert (await client.say("EHLO client.example", "STARTTLS")) == replies.SECURE_ALREADY
    client.close()
    await at_rest(place)


async def test_a_handshake_that_fails_or_is_left_frees_its_place(place: MailWorld) -> None:
    for farewell in (b"\x16\x03\x01no handshake", b""):
        client = await place.connect()
        await client.say("EHLO client.example", "STARTTLS")
        client.writer.write(farewell)
        client.close()
    client = await place.connect()
    await client.say("EHLO client.example", "STARTTLS")
    client.writer.transport.abort()
    client = await place.connect()
    await client.say("EHLO client.example", "STARTTLS")
    with pytest.raises(ssl.SSLError):
        await client.writer.start_tls(ssl.create_default_context(), server_hostname="localhost")
    await at_rest(place)


async def test_sizes_are_refused_when_they_are_told_and_when_they_come(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    await client.say("EHLO client.example")
    assert (await client.say(f"MAIL FROM:<a@example.org> SIZE={MAX_BYTES + 1}")).startswith("552")
    line = b"x" * 998 + b"\r\n"
    whole, rest = divmod(MAX_BYTES, len(line))
    most = line * whole + b"y" * (rest - 2) + b"\r\n"
    assert await data(client, most + b"z\r\n.\r\n") == replies.TOO_BIG
    assert (await data(client, most + b".\r\n")).startswith("250")
    assert [mail.count(b"\n") for mail in new(home)] == [whole + 1 + 3]
    client.close()
    await at_rest(place)


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\r\n.\r\n\n"])
async def test_no_second_mail_can_be_hidden_in_a_first(place: MailWorld, home: Path, end: bytes) -> None:
    """A server before us may read another end of the mail than we do; what it would pass on is refused whole."""
    client = await place.connect()
    hidden = b"MAIL FROM:<boss@example.org>\r\nRCPT TO:<any@demo.localhost>\r\nDATA\r\nhidden\r\n"
    assert await data(client, b"first" + end + hidden + b".\r\n") == replies.BARE_LINE_END
    assert await client.reply() == ""  # nothing that follows is read as commands
    assert new(home) == []
    await at_rest(place)


async def test_a_long_line_refuses_the_mail_and_leaves_the_connection(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    for length in (MAX_LINE + 1, 10 * MAX_LINE):
        assert await data(client, b"x" * length + b"\r\n.\r\n.\r\n") == replies.LINE_TOO_LONG
        assert (await client.reply()).startswith("500")  # the second dot is no mail's end
    assert (await data(client, b"x" * (MAX_LINE - 2) + b"\r\n.\r\n")).startswith("250")
    assert len(new(home)) == 1
    assert (await client.say("NOOP " + "x" * 100_000)).startswith("500")
    client.close()


async def test_commands_may_come_all_at_once(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    lines = [*FROM, "DATA", "one", ".", *FROM[1:], "DATA", "two", ".", "QUIT"]
    client.writer.write("".join(f"{line}\r\n" for line in lines).encode())
    found = [(await client.reply())[:3] for _ in range(10)]
    assert found == ["250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]
    assert sorted(mail.split(b"\n")[-2] for mail in new(home)) == [b"one", b"two"]


async def test_what_is_out_of_order_or_malformed_has_an_answer(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    for line, code in (
        ("MAIL FROM:<a@example.org>", "503"), ("EHLO", "501"), ("EHLO two words", "501"), ("EHLO a\x01b", "501"),
        ("EHLO client.example", "250"), (f"RCPT TO:<{TO}>", "503"), ("DATA", "503"), ("MAIL", "501"),
        ("MAIL TO:<a@example.org>", "501"), ("MAIL FROM:a@example.org", "553"), ("MAIL FROM:<a b>", "553"),
        ("MAIL FROM:<a@example.org", "553"), ("MAIL FROM:<a<b>>", "553"), ("MAIL FROM:<a\x1b@b>", "553"),
        (f"MAIL FROM:<{'x' * 400}@example.org>", "553"), ("MAIL FROM:<a@example.org> SIZE=x", "501"),
        ("MAIL FROM:<a@example.org> AUTH=<>", "555"), ("MAIL FROM:<a@example.org> RET=HDRS", "555"),
        ("MAIL FROM:<> SIZE=100 BODY=8BITMIME", "250"), ("MAIL FROM:<>", "503"), ("RCPT TO:<>", "550"),
        ("RCPT TO:<@relay.example:any@demo.localhost>", "250"), ("DATA now", "501"), ("RSET", "250"), ("DATA", "503"),
        ("VRFY any@demo.localhost", "252"), ("EXPN list", "500"), ("AUTH PLAIN AAAA", "500"), ("HELP", "500"),
        ("ETRN x", "500"), ("\u00e9", "500"), ("", "500"), ("FIFTH", "502"),
    ):
        assert (await client.say(line))[:3] == code, line
    assert await client.reply() == ""  # too much of what it does not know
    assert new(home) == []
    await at_rest(place)


async def test_an_old_client_is_understood(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    assert await client.say("HELO client.example") == "250 localhost"
    assert (await client.say(*FROM[1:], "DATA")).startswith("354")
    client.writer.write(b"hello\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    assert len(new(home)) == 1
    client.close()


async def test_a_silent_client_is_told_and_left(guest_program: Path, tmp_path: Path) -> None:
    async with mail_world(guest_program, tmp_path, Patience(command=SOON)) as place:
        client = await place.connect()
        assert await client.reply() == replies.TIMED_OUT and await client.reply() == ""
        await at_rest(place)


async def test_a_slow_mail_is_given_up(guest_program: Path, tmp_path: Path) -> None:
    async with mail_world(guest_program, tmp_path, Patience(mail=SOON)) as place:
        home = await place.vm("demo")
        client = await place.connect()
        assert (await client.say(*FROM, "DATA")).startswith("354")
        client.writer.write(b"begun\r\n")
        assert await client.reply() == replies.TIMED_OUT and await client.reply() == ""
        await at_rest(place)
        assert new(home) == []


async def test_who_only_keeps_a_connection_loses_it(guest_program: Path, tmp_path: Path) -> None:
    async with mail_world(guest_program, tmp_path, Patience(connection=SOON)) as place:
        client = await place.connect()
        while (found := await client.say("")).startswith("500"):
            await asyncio.sleep(0.01)
        assert found in (replies.TIMED_OUT, "")
        await at_rest(place)


async def test_who_reads_no_answers_is_left_too(guest_program: Path, tmp_path: Path) -> None:
    async with mail_world(guest_program, tmp_path, Patience(command=SOON, goodbye=SOON)) as place:
        with socket.create_connection(("127.0.0.1", place.port)) as client:
            client.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                while client.send(b"\r\n" * 10_000):
                    await asyncio.sleep(0)
            await at_rest(place)


async def test_one_address_has_so_many_connections(guest_program: Path, tmp_path: Path) -> None:
    async with mail_world(guest_program, tmp_path, limit_exempt="") as place:
        home = await place.vm("demo")
        clients = [await place.connect() for _ in range(MAX_PER_ADDRESS)]
        turned_away = Smtp(*await asyncio.open_connection("127.0.0.1", place.port))
        assert await turned_away.reply() == replies.TOO_MANY_CONNECTIONS and await turned_away.reply() == ""
        clients.pop().close()
        async with asyncio.timeout(20):
            while place.door.shared.admission.open == MAX_PER_ADDRESS:
                await asyncio.sleep(0.01)
        assert await place.send(TO) == "250"
        assert len(new(home)) == 1


def test_all_addresses_together_have_so_many_connections() -> None:
    admission = Admission()
    entered = [admission.enter(str(number)) for number in range(MAX_CONNECTIONS + 1)]
    assert entered == [True] * MAX_CONNECTIONS + [False]
    admission.leave("0")
    assert admission.enter("again")
    assert not admission.enter("")


async def test_one_address_begins_so_many_mails_and_is_refused_so_many_recipients(
    guest_program: Path, tmp_path: Path,
) -> None:
    """Guessing names of machines takes many tries."""
    async with mail_world(guest_program, tmp_path, limit_exempt="") as place:
        await place.vm("demo")
        client = await place.connect()
        await client.say("EHLO client.example", "MAIL FROM:<a@example.org>")
        for number in range(MAILS_PER_HOUR // 10 - 1):
            assert (await client.say(f"RCPT TO:<any@guess{number}x.localhost>")).startswith("550")
        assert await client.say("RSET", "MAIL FROM:<a@example.org>") == replies.TOO_MANY_MAILS
        place.base.clock.advance(3600 / MAILS_PER_HOUR + 1)
        assert await client.say("MAIL FROM:<a@example.org>") == replies.OK
        client.close()


async def test_a_mail_has_so_many_recipients_and_a_connection_so_many_commands(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    await client.say(*FROM[:2])
    for number in range(MAX_RECIPIENTS):
        assert (await client.say(f"RCPT TO:<{number}@demo.localhost>")).startswith("250")
    assert await client.say("RCPT TO:<one-more@demo.localhost>") == replies.TOO_MANY_RECIPIENTS
    assert (await client.say("DATA")).startswith("354")
    client.writer.write(b"hello\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    assert len(new(home)) == MAX_RECIPIENTS
    for _ in range(MAX_COMMANDS):
        assert (await client.say("NOOP")).startswith("250")
    assert (await client.say("NOOP")).startswith("421")
    assert await client.reply() == ""


async def test_no_more_mail_is_held_than_fits(place: MailWorld, home: Path) -> None:
    place.door.shared.held.size = MAX_HELD
    client = await place.connect()
    assert await data(client, b"hello\r\n.\r\n") == replies.NO_ROOM
    place.door.shared.held.size = 0
    assert (await data(client, b"hello\r\n" * 1000 + b".\r\n")).startswith("250")
    left = await place.connect()
    await left.say(*FROM, "DATA")
    left.writer.write(b"hello\r\n" * 1000)
    async with asyncio.timeout(20):
        while not place.door.shared.held.size:
            await asyncio.sleep(0.01)
    left.writer.transport.abort()
    client.close()
    await at_rest(place)
    assert len(new(home)) == 1


async def test_many_senders_at_once_get_theirs_through(place: MailWorld, home: Path) -> None:
    other = await place.vm("other")
    to = (TO, "any@other.localhost")
    found = await asyncio.gather(*(place.send(to[n % 2], b"%d\r\n" % n) for n in range(40)))
    assert found == ["250"] * 40
    assert sorted(int(m.split(b"\n")[-2]) for m in (*new(home), *new(other))) == list(range(40))
    await at_rest(place)


async def test_an_error_of_ours_is_no_loss_and_is_not_told(place: MailWorld, home: Path) -> None:
    client = await place.connect()
    place.app.db.close()
    assert await client.say(*FROM) == replies.BROKEN
    client.close()
