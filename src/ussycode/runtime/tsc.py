"""The rate of the processor's time-stamp counter, which a guest under software emulation sees as its own."""
from __future__ import annotations

import ctypes
import functools
import mmap
import time
from collections.abc import Callable

from ussycode.base.errors import ErrorCode, Kind

RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx,32; or rax,rdx; ret"""

SPAN_NS = 50_000_000
"""Between the two readings; with pairs read within a few microseconds the error stays below 0.01 %."""

TRIES = 64
"""Readings per pair; the one the scheduler disturbed least is kept."""

NO_COUNTER = ErrorCode(
    "host.no_tsc", Kind.UNAVAILABLE, "the processor's time-stamp counter cannot be read: {why}",
    hint="virtual machines under software emulation need an x86-64 host with a steady counter",
)

Counter = Callable[[], int]


@functools.cache
def tsc_khz() -> int:
    """Ticks per millisecond, measured against CLOCK_MONOTONIC in 50 ms and kept for the life of the process.

    Not read from /proc/cpuinfo: that is the present clock of a core, not the rate of the counter. Raises NO_COUNTER.
    """
    return measure(counter(), time.monotonic_ns)


def measure(ticks: Counter, clock_ns: Counter, span_ns: int = SPAN_NS) -> int:
    """Ticks of one counter per millisecond of the other. Raises NO_COUNTER when the counter stands still."""
    first_tick, first_ns = _pair(ticks, clock_ns)
    while clock_ns() - first_ns < span_ns:
        pass  # spinning, not sleeping: a sleeping core may stop an old processor's counter
    last_tick, last_ns = _pair(ticks, clock_ns)
    if last_tick <= first_tick:
        raise NO_COUNTER(why="it does not advance")
    return round((last_tick - first_tick) * 1_000_000 / (last_ns - first_ns))


def counter() -> Counter:
    """A function that reads the counter: ten bytes of machine code in a page of their own."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError as refused:
        raise NO_COUNTER(why="this system does not allow machine code made at run time").because(refused) from None
    page.write(RDTSC)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    read: Counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    _PAGES.append(page)
    return read


_PAGES: list[mmap.mmap] = []
"""Keeps the code mapped for as long as anybody may call it."""


def _pair(ticks: Counter, clock_ns: Counter) -> tuple[int, int]:
    """One moment in both counters: the tick, and the middle of the two clock readings around it."""
    readings = [(clock_ns(), ticks(), clock_ns()) for _ in range(TRIES)]
    before, tick, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return tick, (before + after) // 2
