"""Processes that read what strangers wrote may stand still; nobody else may wait for them."""
from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio

from ussycode.base.errors import Failure
from ussycode.runtime.export import Packing
from ussycode.runtime.images import pull


@pytest_asyncio.fixture
async def one_thread() -> AsyncIterator[None]:
    """A platform with one thread for everything that blocks."""
    with ThreadPoolExecutor(1) as only:
        asyncio.get_running_loop().set_default_executor(only)
        yield


def process(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True, bufsize=0)


async def others_get_on() -> None:
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(sum, (1, 2)) == 3


async def test_a_process_that_never_ends_takes_no_thread_and_ends_with_who_waits(one_thread: None) -> None:
    stuck = process("exec sleep 1000")
    waiting = asyncio.create_task(pull.finished(stuck, 3600))
    await asyncio.sleep(0)
    await others_get_on()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert stuck.poll() is not None
    with pytest.raises(TimeoutError):
        await pull.finished(process("exec sleep 1000"), 0.01)
    quick = process("exit 3")
    await pull.finished(quick, 5)
    assert quick.returncode == 3


async def test_an_export_that_stands_still_takes_no_thread_and_has_a_bound(one_thread: None, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    packing = Packing(process("exec sleep 1000"), tmp_path, 0.05)
    looking = asyncio.create_task(packing.export())
    await asyncio.sleep(0)
    await others_get_on()
    with pytest.raises(Failure, match="reading it took more than is allowed"):
        await looking
    packing.close()
    begun = Packing(process("""printf '{"size": 9}\\nfour'; exec sleep 1000"""), tmp_path / "none", 5)
    async with await begun.export() as sent:
        pieces = sent.chunks()
        assert await anext(pieces) == b"four"
        more = asyncio.create_task(anext(pieces))
        await asyncio.sleep(0)
        await others_get_on()
        more.cancel()
        await asyncio.gather(more, return_exceptions=True)
    assert begun.process.poll() is not None
