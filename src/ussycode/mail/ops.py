"""Sending what is spooled."""
from __future__ import annotations

import asyncio

import structlog

from ussycode.mail import store
from ussycode.mail.model import Mail, MailState
from ussycode.mail.relay import Mailer, Undelivered
from ussycode.ports import App

INTERVAL = 5.0
"""Seconds between two looks when nobody nudges."""
AT_ONCE = 20
"""Mails delivered in one look."""
ATTEMPTS = 8
"""Deliveries that are tried before a mail is given up: over about two hours."""
FIRST_RETRY = 30.0
"""Seconds until the second attempt; each further one waits twice as long."""
_log = structlog.get_logger("ussycode.mail")


async def deliver_for_ever(app: App, mailer: Mailer) -> None:
    """Deliver what is spooled until cancelled."""
    while True:
        try:
            await deliver(app, mailer)
        except Exception:  # the outermost frame of the delivery: one bad round must not be the last
            _log.exception("a round of mail delivery failed")
        await asyncio.sleep(INTERVAL)


async def deliver(app: App, mailer: Mailer) -> int:
    """One round: try every mail whose time has come; how many were tried."""
    mails = await app.db.read(lambda tx: store.due(tx, AT_ONCE))
    for mail in mails:
        values = await _try(app, mailer, mail)
        await app.db.write(lambda tx, mail=mail, values=values: store.update(tx, mail.id, **values))  # type: ignore[misc]
        app.telemetry.event(f"mail.{values['state']}")
    return len(mails)


async def _try(app: App, mailer: Mailer, mail: Mail) -> dict[str, object]:
    tried = mail.attempts + 1
    try:
        sent = await mailer.deliver(mail)
    except ValueError as why:
        return {"state": MailState.FAILED.value, "attempts": tried, "error": str(why)}
    except Undelivered as why:
        _log.warning("a mail was not delivered", mail=mail.id, why=str(why), final=why.final)
        if why.final or tried >= ATTEMPTS:
            return {"state": MailState.FAILED.value, "attempts": tried, "error": str(why)[:500]}
        again = app.clock.now() + FIRST_RETRY * 2 ** mail.attempts
        return {"state": MailState.WAITING.value, "attempts": tried, "error": str(why)[:500], "again_at": again}
    state = MailState.SENT if sent else MailState.KEPT
    return {"state": state.value, "attempts": tried, "error": ""}
