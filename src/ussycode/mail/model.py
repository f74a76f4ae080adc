"""One mail of the platform."""
from __future__ import annotations

import enum
from dataclasses import dataclass


class MailState(enum.StrEnum):
    """Where a mail is. `KEPT` = no relay is configured: the operator reads it with `ussycode outbox`."""

    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"
    KEPT = "kept"


@dataclass(frozen=True)
class Mail:
    """A plain-text mail. `again_at` in unix seconds; `error` is the relay's last word."""

    id: str
    to: str
    subject: str
    body: str
    created_at: float
    state: MailState = MailState.WAITING
    attempts: int = 0
    again_at: float = 0.0
    error: str = ""
