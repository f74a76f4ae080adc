"""What msgspec raises for bytes that are not the JSON that was expected, whoever wrote them."""
from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Not JSON or not of the shape, text that is not UTF-8, nested without end."""
