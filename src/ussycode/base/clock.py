"""Time as an argument: the only place that reads the clock."""
from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Unix time in seconds (UTC)."""

    def now(self) -> float: ...


class SystemClock:
    """The host's clock."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()


@dataclass
class ManualClock:
    """A clock that tests move by hand."""

    at: float = 1_800_000_000.0

    def now(self) -> float:
        """Unix seconds as last set."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self.at += seconds


def utc(at: float) -> dt.datetime:
    """Unix seconds as a point of time that knows its zone."""
    return dt.datetime.fromtimestamp(at, dt.UTC)


def rfc3339(at: float) -> str:
    """Unix seconds as RFC 3339 UTC with whole seconds."""
    return dt.datetime.fromtimestamp(int(at), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
