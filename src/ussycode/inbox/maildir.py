"""Putting a mail into a guest: `~/Maildir` of its login user, with that user's rights and nobody else's."""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ussycode.base.errors import Failure
from ussycode.ports import NodeLink
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.files import Files

HOME = "Maildir"
DRAFTS, NEW, SEEN = f"{HOME}/tmp", f"{HOME}/new", f"{HOME}/cur"  # noqa: S108 - of the guest
FOLDER_MODE, FILE_MODE = 0o700, 0o600


async def keep(
    link: NodeLink, vm: str, user: str, name: str, parts: Sequence[bytes | bytearray], most: int,
) -> bool:
    """Put a mail called `name` under `new/`, whole and durable or not at all; False when `most` lie there unread.

    Raises what the link and the guest's agent declare.
    """
    stream = await link.open_sftp(vm, user)
    try:
        files = Files(stream)
        await files.begin()
        for folder in (HOME, DRAFTS, NEW, SEEN):
            await _make(files, folder)
        if await files.count(NEW, most) >= most:
            return False
        await _write(files, name, parts)
    finally:
        await stream.close()
    return True


async def _make(files: Files, folder: str) -> None:
    try:
        await files.make_folder(folder, FOLDER_MODE)
    except Failure as failure:
        if failure.error is not errors.FAILED:  # it is there, as a rule
            raise


async def _write(files: Files, name: str, parts: Sequence[bytes | bytearray]) -> None:
    draft = f"{DRAFTS}/{name}"
    try:
        await files.write_new(draft, parts, FILE_MODE)
        await files.rename(draft, f"{NEW}/{name}")
    except Failure:
        with suppress(Failure):  # a full disk gets its room back
            await files.remove(draft)
        raise
    await files.sync_folder(NEW)
