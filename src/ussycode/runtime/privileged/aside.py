"""Work that takes long, done in a process of its own: meanwhile the helper answers everybody else."""
from __future__ import annotations

import asyncio
import os
import signal
from typing import NoReturn, cast

from ussycode.runtime.privileged.containers import Orphan
from ussycode.runtime.privileged.helper import Helper
from ussycode.runtime.privileged.protocol import (
    ContainerGrow,
    ContainerKeep,
    ContainerMake,
    Refused,
    Reply,
    Request,
    decode_reply,
    encode,
)

LONG = (ContainerMake, ContainerKeep, ContainerGrow)
"""Verbs that may copy or check a whole disk. They touch nothing that other verbs of the helper remember."""
_CUT_OFF = Refused("the work was cut off before its end")


async def aside(helper: Helper, request: Request) -> Reply:
    """The reply to `request`, carried out by a child that ends with it. It survives the helper itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(helper, request, writing)
    os.close(writing)
    helper.children[f"aside-{pid}"] = Orphan(pid)
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb")
    )
    try:
        said = await stream.read()
    finally:
        transport.close()
    return cast(Reply, decode_reply(said)) if said else _CUT_OFF


def _work(helper: Helper, request: Request, writing: int) -> NoReturn:
    """The child's life. What it inherited of the loop and of the helper's children is not its own."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    helper.children.clear()
    try:
        os.write(writing, encode(helper.do(request)))
    finally:
        os._exit(0)
