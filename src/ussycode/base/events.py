"""Events: what happened, written with the change itself, then told to telemetry, feeds and waiters."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One thing that happened. `kind` is `noun.verb`; `subject` is the id it happened to.

    `actor` is a user id, or `system` for what the platform did by itself. `data` holds plain JSON
    values and never a secret.
    """

    kind: str
    actor: str
    subject: str
    data: Mapping[str, object] = field(default_factory=dict)


SYSTEM = "system"
"""Actor of what nobody asked for: observations of nodes, expiry."""
