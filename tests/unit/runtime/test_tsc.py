"""The counter's rate: wrong by a percent, and every clock in every emulated guest runs wrong by a percent."""
from __future__ import annotations

import time

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime import tsc


class Ticking:
    """A clock of nanoseconds and a counter that follow each other exactly."""

    def __init__(self, khz: int) -> None:
        self.ns, self.khz = 0, khz

    def clock(self) -> int:
        self.ns += 40
        return self.ns

    def ticks(self) -> int:
        return (self.ns + 20) * self.khz // 1_000_000


@pytest.mark.parametrize("khz", [1_000_000, 2_596_120, 4_700_000])
def test_the_rate_is_found(khz: int) -> None:
    host = Ticking(khz)
    assert tsc.measure(host.ticks, host.clock, span_ns=1_000_000) == pytest.approx(khz, rel=1e-5)


def test_a_counter_that_stands_still_is_refused() -> None:
    host = Ticking(0)
    with pytest.raises(Failure) as refused:
        tsc.measure(host.ticks, host.clock, span_ns=1_000_000)
    assert refused.value.error is tsc.NO_COUNTER


def test_two_measurements_of_this_host_agree() -> None:
    again = tsc.measure(tsc.counter(), time.monotonic_ns)
    assert tsc.tsc_khz() == pytest.approx(again, rel=1e-3)
    assert 500_000 < again < 10_000_000
