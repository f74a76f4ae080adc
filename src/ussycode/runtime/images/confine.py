"""Walls around a process that reads strangers' bytes: bounded memory and time, no network, its own folder only."""
from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

MEMORY = 3 << 30
"""Bytes of address space: what ends a header that says it is huge."""
CPU_SECONDS = 1800
MAX_FILE = 64 << 30
MAX_OPEN = 128
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH, _NO_NEW_PRIVS = 1, 1, 38
_EXECUTE, _WRITE, _READ = 1 << 0, 1 << 1, 1 << 2
_CHANGES = 0b1_1111_1111_0000
"""Removing and making names of every kind."""
_BIND_AND_CONNECT = 0b11
_NET_SINCE = 4
READ_ONLY = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc")


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def confine(folder: Path) -> bool:
    """Leave this process `folder` and the host's programs, for ever; whether the kernel knows such walls (Landlock)."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_FSIZE, MAX_FILE),
        (resource.RLIMIT_NOFILE, MAX_OPEN), (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    os.nice(10)  # an answer to somebody who waits goes first
    return _landlock(folder)


def landlock() -> int:
    """Version of Landlock that the kernel has; 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def _landlock(folder: Path) -> bool:
    libc, version = ctypes.CDLL(None, use_errno=True), landlock()
    if version < 1:
        return False
    rules = _Ruleset(_EXECUTE | _WRITE | _READ | _CHANGES, _BIND_AND_CONNECT if version >= _NET_SINCE else 0)
    size = ctypes.c_size_t(ctypes.sizeof(rules) if version >= _NET_SINCE else 8)
    made = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if made < 0:
        return False
    _allow(libc, made, str(folder), _WRITE | _READ | _CHANGES)
    _allow(libc, made, "/dev/null", _WRITE | _READ)
    for place in (*READ_ONLY, sys.base_prefix, *sys.path):
        _allow(libc, made, place, _READ | _EXECUTE)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    walled = libc.syscall(_RESTRICT_SELF, made, 0) == 0
    os.close(made)
    return bool(walled)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> None:
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a host without such a folder
    rule = _Beneath(access if Path(path).is_dir() or access & _WRITE else access & (_READ | _EXECUTE), at)
    libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    os.close(at)
