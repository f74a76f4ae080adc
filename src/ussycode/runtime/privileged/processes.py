"""Which process is a VM's QEMU: a root-owned record, checked against start time and uid before it is believed."""
from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec

from ussycode.base.unreadable import UNREADABLE

_RECORD = "process.json"


class Record(msgspec.Struct, frozen=True):
    """What the helper wrote down when it started a VM's QEMU; `exit` once it saw it end."""

    pid: int
    started: int
    number: int
    uid: int
    exit: int | None = None
    confined: bool = False
    """`egress integrations`."""


def read(run: Path) -> Record | None:
    """The record in a VM's run folder; None when there is none or it was cut off."""
    try:
        return msgspec.json.decode((run / _RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, NotADirectoryError, *UNREADABLE):
        return None


def write(run: Path, record: Record) -> None:
    """Replace the record in one rename."""
    draft = run / f"{_RECORD}.new"
    draft.write_bytes(msgspec.json.encode(record))
    draft.chmod(0o644)
    draft.replace(run / _RECORD)


def start_time(pid: int) -> int | None:
    """Clock ticks after the host's boot at which `pid` started; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(record: Record) -> bool:
    """The recorded process still runs, and its pid was not taken over by another."""
    return start_time(record.pid) == record.started and _uid(record.pid) == record.uid


def open_alive(record: Record) -> int | None:
    """A pidfd of the recorded process (readable once it ended); None when it is not there any more."""
    try:
        fd = os.pidfd_open(record.pid)
    except OSError:
        return None
    if alive(record):  # asked after opening: from here on the descriptor cannot mean another process
        return fd
    os.close(fd)
    return None


def kill(record: Record) -> None:
    """End the recorded process at once, and never another one."""
    fd = open_alive(record)
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _uid(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    line = next(line for line in status.splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])
