"""Files in a guest, against the real agent and against one that lies."""
from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from host_agent import HostAgent

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.files import CHUNK, Files
from ussycode.runtime.guest.streams import Stream, open_sftp


async def test_files_are_made_counted_renamed_and_removed(agent: HostAgent, tmp_path: Path) -> None:
    stream = await open_sftp(agent.addr)
    files = Files(stream)
    await files.begin()
    box, content = str(tmp_path / "box"), bytes(range(256)) * (CHUNK // 256 + 3)
    await files.make_folder(box, 0o700)
    with pytest.raises(Failure) as there:
        await files.make_folder(box, 0o700)
    assert there.value.error is errors.FAILED
    await files.write_new(f"{box}/a", (b"head", bytearray(content)), 0o600)
    assert (tmp_path / "box" / "a").read_bytes() == b"head" + content
    assert (tmp_path / "box" / "a").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Failure):
        await files.write_new(f"{box}/a", (b"again",), 0o600)
    await files.rename(f"{box}/a", f"{box}/b")
    await files.write_new(f"{box}/a", (b"",), 0o600)
    with pytest.raises(Failure):
        await files.rename(f"{box}/a", f"{box}/b")
    await files.sync_folder(box)
    for number in range(250):
        (tmp_path / "box" / str(number)).touch()
    assert (await files.count(box, 1000), await files.count(box, 252), await files.count(box, 7)) == (252, 252, 7)
    await files.remove(f"{box}/a")
    with pytest.raises(Failure) as gone:
        await files.remove(f"{box}/a")
    assert gone.value.error is errors.NO_FILE
    await stream.close()
    with pytest.raises(Failure) as closed:
        await files.remove(f"{box}/b")
    assert closed.value.error is errors.GONE


def packet(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


LIES: dict[str, Callable[[int], bytes]] = {
    "nothing": lambda n: b"", "half a size": lambda n: b"\0\0", "size 0": lambda n: bytes(4),
    "a huge size": lambda n: b"\xff" * 4, "cut short": lambda n: packet(101, n, bytes(8))[:-3],
    "of another request": lambda n: packet(102, n + 1, bytes(4)), "no number": lambda n: b"\0\0\0\1\x65",
    "of no known kind": lambda n: packet(77, n), "a status without a code": lambda n: packet(101, n),
    "a failure without words": lambda n: packet(101, n, struct.pack(">I", 4)),
    "a failure of many words": lambda n: packet(101, n, struct.pack(">II", 4, 1 << 31) + b"x" * 1000),
    "no names": lambda n: packet(104, n, bytes(4)), "more names than there are": lambda n: packet(104, n, b"\xff" * 4),
    "a name longer than all": lambda n: packet(104, n, struct.pack(">III", 1, 1 << 31, 1) + b"x" * 20),
    "names without a count": lambda n: packet(104, n),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_an_agent_makes_up_is_a_declared_failure(lie: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(1, 10):
            try:
                size = int.from_bytes(await reader.readexactly(4), "big")
                asked = (await reader.readexactly(size))[0]
            except asyncio.IncompleteReadError:
                break
            opening = asked == 11 and "name" in lie
            writer.write(packet(102, number, struct.pack(">I", 1) + b"h") if opening else LIES[lie](number))
            if not opening:
                writer.write_eof()
                break
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        stream = Stream(reader, writer, {})
        async with asyncio.timeout(10):
            with pytest.raises(Failure) as failure:
                await Files(stream).count("box", 1000)
        assert failure.value.error in (errors.PROTOCOL, errors.GONE, errors.FAILED)
        assert len(str(failure.value.sentence)) < 400
        await stream.close()
