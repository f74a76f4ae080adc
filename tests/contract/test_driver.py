"""The driver contract over what needs no machine; the real one is under tests/live."""
from __future__ import annotations

from tests.contract.check_driver import check_driver
from ussycode.runtime.drivers.fake import FakeDriver


async def test_the_fake_keeps_the_contract() -> None:
    async def make() -> FakeDriver:
        return FakeDriver()

    await check_driver(make)
