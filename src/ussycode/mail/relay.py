"""Delivery: through the operator's SMTP relay, or into the outbox on disk where none is configured."""
from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Protocol

import aiosmtplib

from ussycode.base.clock import utc
from ussycode.base.secrets import Secret
from ussycode.mail.model import Mail

SECONDS = 30.0
"""Time of one delivery."""
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""Addresses that mail is sent to: no quoting, no spaces, nothing that a header could misread."""


class Undelivered(Exception):
    """The relay did not take a mail. `final` says that it never will."""

    def __init__(self, why: str, final: bool) -> None:
        super().__init__(why)
        self.final = final


class Mailer(Protocol):
    """Takes mails to their receivers."""

    async def deliver(self, mail: Mail) -> bool:
        """True when it is on its way, False when it is kept to be read here. Raises Undelivered."""
        ...


class Outbox:
    """No relay: every mail stays where it is, and the operator reads it."""

    async def deliver(self, mail: Mail) -> bool:
        """Keep it."""
        return False


@dataclass(frozen=True)
class Relay:
    """An SMTP relay. `security` is `starttls`, `tls` or `none`; `sender` the address that mails come from."""

    host: str
    port: int
    security: str
    user: str
    password: Secret
    sender: str

    async def deliver(self, mail: Mail) -> bool:
        """Hand the mail over."""
        try:
            await aiosmtplib.send(
                message(mail, self.sender), hostname=self.host, port=self.port, timeout=SECONDS,
                use_tls=self.security == "tls", start_tls=self.security == "starttls",
                username=self.user or None, password=self.password.reveal() or None,
            )
        except aiosmtplib.SMTPResponseException as why:
            raise Undelivered(f"{why.code} {why.message}", final=500 <= why.code < 600) from None
        except aiosmtplib.SMTPRecipientsRefused as why:
            raise Undelivered(str(why.recipients[0]), final=all(500 <= r.code < 600 for r in why.recipients)) from None
        except (aiosmtplib.SMTPException, OSError) as why:
            raise Undelivered(f"{type(why).__name__}: {why}", final=False) from None
        return True


def message(mail: Mail, sender: str) -> EmailMessage:
    """The mail as it travels. Raises ValueError for a line break in a header or an address that is none."""
    if not ADDRESS.fullmatch(mail.to):
        raise ValueError("not an address")
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"], made["Subject"] = sender, mail.to, mail.subject
    made["Date"] = format_datetime(utc(mail.created_at))
    made["Message-ID"] = f"<{mail.id}@{sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(mail.body)
    return made
