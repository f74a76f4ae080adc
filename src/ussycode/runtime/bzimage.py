"""The ELF kernel inside a bzImage: QEMU enters it directly, which skips the guest's own decompressor."""
from __future__ import annotations

import ctypes
import lzma
import struct
import zlib

from ussycode.base.errors import ErrorCode, Kind

MAX_VMLINUX = 256 << 20
"""Bytes a decompressed kernel may have; Debian's is about 50 MiB."""

SECTOR = 512
PROTOCOL_WITH_PAYLOAD = 0x208
"""First version of the x86 boot protocol whose header says where the payload is."""

LZ4_LEGACY_BLOCK = 8 << 20
"""Bytes that one block of the legacy LZ4 frame expands to at most."""

BAD_KERNEL = ErrorCode("kernel.unreadable", Kind.FAILED, "the kernel image cannot be unpacked: {why}")


def vmlinux(image: bytes) -> bytes:
    """The ELF file inside `image`. Raises BAD_KERNEL when it is no bzImage or its compression is unknown."""
    elf = decompress(payload(image))
    if not elf.startswith(b"\x7fELF"):
        raise BAD_KERNEL(why="its payload is not an ELF file")
    return elf


def payload(image: bytes) -> bytes:
    """The compressed part of a bzImage, found through the boot protocol's header."""
    if image[0x202:0x206] != b"HdrS" or _u16(image, 0x206) < PROTOCOL_WITH_PAYLOAD:
        raise BAD_KERNEL(why="it is not a bzImage of this century")
    start = (image[0x1F1] + 1) * SECTOR + _u32(image, 0x248)
    length = _u32(image, 0x24C)
    if start + length > len(image):
        raise BAD_KERNEL(why="it is cut short")
    return image[start : start + length]


def decompress(data: bytes) -> bytes:
    """Undo gzip, xz, LZ4 (legacy frame) or Zstandard, as the magic number says.

    The kernel's build appends the unpacked size as four bytes, which are no part of the stream.
    """
    for magic, unpack in UNPACKERS.items():
        if data.startswith(magic):
            return unpack(data)
    raise BAD_KERNEL(why=f"its compression is unknown (it starts with {data[:4].hex()})")


def _gzip(data: bytes) -> bytes:
    return _checked(zlib.decompressobj(wbits=31).decompress(data, MAX_VMLINUX))


def _xz(data: bytes) -> bytes:
    return _checked(lzma.LZMADecompressor().decompress(data, MAX_VMLINUX))


def _lz4(data: bytes) -> bytes:
    library = _library("liblz4.so.1")
    room = ctypes.create_string_buffer(LZ4_LEGACY_BLOCK)
    out = bytearray()
    at = 4
    while at + 4 < len(data):
        size = _u32(data, at)
        block = data[at + 4 : at + 4 + size]
        if size == 0 or len(block) < size:
            break  # what follows the last block is the appended size
        written = library.LZ4_decompress_safe(block, room, len(block), LZ4_LEGACY_BLOCK)
        if written < 0 or len(out) + written > MAX_VMLINUX:
            raise BAD_KERNEL(why="its LZ4 data is damaged")
        out += ctypes.string_at(room, written)
        at += 4 + size
    return bytes(out)


def _zstd(data: bytes) -> bytes:
    library = _library("libzstd.so.1")
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    frame = library.ZSTD_findFrameCompressedSize(data, ctypes.c_size_t(len(data)))
    size = _u32(data, len(data) - 4)  # the kernel's build appended it; frames made from a pipe do not say it
    if library.ZSTD_isError(ctypes.c_size_t(frame)) or size > MAX_VMLINUX:
        raise BAD_KERNEL(why="its Zstandard data is damaged")
    room = ctypes.create_string_buffer(size)
    written = library.ZSTD_decompress(room, ctypes.c_size_t(size), data, ctypes.c_size_t(frame))
    if written != size:
        raise BAD_KERNEL(why="its Zstandard data is damaged")
    return room.raw


def _checked(out: bytes) -> bytes:
    if len(out) >= MAX_VMLINUX:
        raise BAD_KERNEL(why=f"it is larger than {MAX_VMLINUX >> 20} MiB")
    return out


def _library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)  # apt itself links both libraries, so every Debian has them
    except OSError as missing:
        raise BAD_KERNEL(why=f"the library {name} is missing").because(missing) from None


def _u16(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", data, at)[0])


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


UNPACKERS = {
    b"\x1f\x8b\x08": _gzip,
    b"\xfd7zXZ\x00": _xz,
    b"\x02\x21\x4c\x18": _lz4,
    b"\x28\xb5\x2f\xfd": _zstd,
}
