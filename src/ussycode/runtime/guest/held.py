"""A kernel that has booted and waits for the host: the guest program before it has looked at any disk."""
from __future__ import annotations

import asyncio
from pathlib import Path

from ussycode.runtime.guest import errors

WAITS, GO, GOES = b"ussy waits\n", b"ussy go %b\n", b"ussy goes\n"
MAX_WORDS = 4096
"""Bytes in which the guest must have said what it has to say."""


async def wait(path: Path, seconds: float, init: str = "") -> None:
    """Until the kernel behind the port's socket waits; with `init`, also let it go on with that.

    Returns once it has understood, so that the port may be left. Raises TIMEOUT, GONE or PROTOCOL.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_WORDS)
            try:
                await reader.readuntil(WAITS)
                if init:
                    writer.write(GO % init.encode())
                    await reader.readuntil(GOES)
            finally:
                writer.close()
    except TimeoutError:
        raise errors.TIMEOUT() from None
    except (OSError, asyncio.IncompleteReadError) as error:
        raise errors.GONE().because(error) from None
    except asyncio.LimitOverrunError:
        raise errors.PROTOCOL(why="it says anything but that it waits") from None
