"""Reading request bodies within a bound."""
from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request

from ussycode.base.errors import ErrorCode, Kind

TOO_LARGE = ErrorCode("http.too_large", Kind.TOO_LARGE, "the request body has more than {limit} bytes")
MAX_FORM = 4096
"""Bytes of a form."""
CUT_SHORT = ErrorCode("http.cut_short", Kind.BAD_REQUEST, "the request body is cut short")


async def read(request: Request, limit: int) -> bytes:
    """The whole body. Raises TOO_LARGE as soon as that is known."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TOO_LARGE(limit=limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise TOO_LARGE(limit=limit)
    except ClientDisconnect:
        raise CUT_SHORT() from None
    return bytes(body)


async def form(request: Request) -> dict[str, str]:
    """The first value of each field of a small form. Raises TOO_LARGE."""
    raw = await read(request, MAX_FORM)
    return {name: values[0] for name, values in parse_qs(raw.decode(errors="replace")).items()}
