"""Reading request bodies within a bound."""
from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from ussycode.base.errors import ErrorCode, Kind

TOO_LARGE = ErrorCode("http.too_large", Kind.TOO_LARGE, "the request body has more than {limit} bytes")
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
