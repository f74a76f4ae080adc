"""Spans of time as people write them."""
from __future__ import annotations

import re

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}


def life(text: str) -> int:
    """Seconds of `90m`, `12h`, `30d`, `4w` or `1y`; 0 for `never`."""
    if text == "never":
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdwy])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= 10 * _UNITS["y"]:
        raise ValueError("write a time such as 12h, 30d, 1y (at most 10y), or never")
    return seconds
