"""The helper's unix socket: root and control may speak, one framed request after the other."""
from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

import structlog

from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.instance import Instance, make_folders
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net.policy import USUAL, Policy
from ussycode.runtime.privileged import cgroups
from ussycode.runtime.privileged.aside import LONG, aside
from ussycode.runtime.privileged.helper import Helper
from ussycode.runtime.privileged.protocol import HEADER, MAX_FRAME, Refused, Reply, decode_request, encode

MAX_CLIENTS = 16
_IDLE = 60.0
"""Seconds a connection may stay silent between two requests."""
_log = structlog.get_logger("ussycode.helper")


def serve(
    instance: Instance, boot: BootFiles, tsc_khz: int, *, containers: bool = False, policy: Policy = USUAL,
    shown: tuple[Path, ...] = (),
) -> None:
    """Be the privileged helper until SIGTERM or SIGINT. Root only; VMs outlive it."""
    asyncio.run(_serve_until_told(instance, boot, tsc_khz, containers, policy, shown))


async def start(
    instance: Instance, boot: BootFiles, tsc_khz: int, *, containers: bool = False, policy: Policy = USUAL,
    shown: tuple[Path, ...] = (),
) -> asyncio.Server:
    """Listen on the instance's helper socket; close the returned server to stop. Root only, main thread only."""
    make_folders(instance)
    limits = cgroups.detect(f"ussycode-{instance.slot}")
    if left := limits.sweep():
        _log.info("groups without a process removed", count=left)
    helper = Helper(
        instance, boot, tsc_khz, limits, with_containers=containers, policy=policy, shown=shown,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, helper.reap)
    talks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(talks) >= MAX_CLIENTS or not _welcome(writer, instance):
            writer.close()
            return
        talks.add(task)
        try:
            await _talk(helper, reader, writer)
        except asyncio.CancelledError:
            return  # the helper ends; a cancelled connection task makes asyncio's own callback complain
        finally:
            talks.discard(task)
            writer.close()

    instance.helper_socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(accept, instance.helper_socket, limit=MAX_FRAME)
    os.chown(instance.helper_socket, instance.control_uid, instance.control_uid)
    instance.helper_socket.chmod(0o600)
    return server


async def _serve_until_told(
    instance: Instance, boot: BootFiles, tsc_khz: int, containers: bool, policy: Policy,
    shown: tuple[Path, ...],
) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    server = await start(instance, boot, tsc_khz, containers=containers, policy=policy, shown=shown)
    await told.wait()
    server.close()
    instance.helper_socket.unlink(missing_ok=True)


def _welcome(writer: asyncio.StreamWriter, instance: Instance) -> bool:
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid in (0, instance.control_uid)


async def _talk(helper: Helper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(_IDLE):
                size = int.from_bytes(await reader.readexactly(HEADER), "big")
                if size > MAX_FRAME:
                    return
                body = await reader.readexactly(size)
            reply = encode(await _answer(helper, body))
            writer.write(len(reply).to_bytes(HEADER, "big") + reply)
            await writer.drain()


async def _answer(helper: Helper, body: bytes) -> Reply:
    try:
        request = decode_request(body)
    except UNREADABLE as error:
        return Refused(f"not a request: {error}")
    reply = await aside(helper, request) if isinstance(request, LONG) else helper.do(request)
    if isinstance(reply, Refused):
        _log.warning("refused", verb=type(request).__name__, why=reply.why)
    return reply
