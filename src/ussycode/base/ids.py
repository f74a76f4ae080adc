"""Identifiers: a prefix for the noun and 80 random bits, safe in file names, URLs and logs."""
from __future__ import annotations

import base64
import secrets
from typing import NewType

UserId = NewType("UserId", str)
VmId = NewType("VmId", str)
KeyId = NewType("KeyId", str)
RequestId = NewType("RequestId", str)


def new(prefix: str) -> str:
    """A fresh id such as `vm_k3j2…`: `prefix`, an underscore, 16 characters of a-z2-7."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(10)).decode().lower()}"


def request_id() -> RequestId:
    """A fresh id for one request, shown in headers, logs and internal errors."""
    return RequestId(new("req"))
