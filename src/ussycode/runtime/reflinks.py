"""Files that share their bytes until one is written to, where the file system does that (XFS, btrfs)."""
from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
from pathlib import Path

_FICLONE, _FIEMAP = 0x4004_9409, 0xC020_660B
_HEAD, _EXTENT = struct.Struct("<QQLLLL"), struct.Struct("<QQQ16xL12x")
_LAST, _SHARED = 0x1, 0x2000
_AT_ONCE = 500
"""Extents asked for in one call."""
_REFUSED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.ENOSYS)


def possible(folder: Path) -> bool:
    """Whether files in a folder can share bytes: tried, with two files that are gone afterwards."""
    one, other = (folder / f".probe-{secrets.token_hex(8)}" for _ in range(2))
    try:
        one.write_bytes(bytes(4096))
        clone(one, other)
        return True
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    finally:
        one.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def clone(source: Path, target: Path) -> None:
    """Make `target`, readable by all and written by none, with the bytes of `source` at this moment. Raises OSError."""
    with source.open("rb") as old:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            fcntl.ioctl(fd, _FICLONE, old.fileno())
            os.fsync(fd)
        except BaseException:
            target.unlink()
            raise
        finally:
            os.close(fd)


def alone(path: Path) -> int:
    """Bytes on the host that no other file shares with this one; 0 for one that is gone. Raises OSError."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        own, at, last = 0, 0, False
        while not last:
            asked = bytearray(_HEAD.pack(at, (1 << 63) - at, 0, 0, _AT_ONCE, 0) + bytes(_EXTENT.size * _AT_ONCE))
            fcntl.ioctl(file.fileno(), _FIEMAP, asked)
            count = _HEAD.unpack_from(asked)[3]
            last = count == 0
            for number in range(count):
                start, _, length, flags = _EXTENT.unpack_from(asked, _HEAD.size + number * _EXTENT.size)
                own += 0 if flags & _SHARED else length
                at, last = start + length, bool(flags & _LAST)
        return own
