"""The reconciler: on a timer and when nudged, look, plan, do, report; the only path on which VMs change."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from ussycode.base.clock import Clock
from ussycode.base.errors import Failure
from ussycode.base.telemetry import Telemetry
from ussycode.runtime.driver import Driver, Phase, Power, Seen, VmId, Want
from ussycode.runtime.plan import Step, plan

INTERVAL = 2.0
"""Seconds between two looks when nobody nudges."""
AT_ONCE = 32
"""VMs worked on at the same time: more than an account may have, so that one whose guests stall holds up nobody else.

What costs the host something (boots, packing) has bounds of its own.
"""
FIRST_BACKOFF, LAST_BACKOFF = 2.0, 60.0
"""Seconds until a VM whose step failed is tried again: doubled from the first to the last."""
_log = structlog.get_logger("ussycode.agent")


@dataclass
class _Trouble:
    """A VM whose last step failed: what to report, and when to try again."""

    boot: int
    power: Power
    detail: str
    again_at: float
    backoff: float


@dataclass
class Reconciler:
    """Makes the driver's VMs what `fetch` wants and tells `report` what is seen. Run it once, cancel it to stop."""

    driver: Driver
    fetch: Callable[[], Awaitable[Sequence[Want]]]
    report: Callable[[Sequence[Seen]], Awaitable[None]]
    clock: Clock
    interval: float = INTERVAL
    telemetry: Telemetry = field(default_factory=lambda: Telemetry("ussycode-agent"))
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: dict[VmId, asyncio.Task[None]] = field(default_factory=dict)
    _trouble: dict[VmId, _Trouble] = field(default_factory=dict)
    _gone: set[VmId] = field(default_factory=set)
    _booting: dict[VmId, float] = field(default_factory=dict)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def nudge(self) -> None:
        """Look now. Cheap, from within the loop's thread; many nudges make one look."""
        self._nudged.set()

    async def begin(self) -> None:
        """The first round, before anybody is told a state that was true yesterday; `run` goes on from there."""
        await self._guarded_look()

    async def run(self) -> None:
        """Work until cancelled; steps under way are then cut off, which every driver survives."""
        try:
            while True:
                await self._wait()
                await self._guarded_look()
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def look(self) -> None:
        """One round: report what is seen and begin what is to be done, without waiting for its end."""
        wants = {want.vm: want for want in await self.fetch()}
        seen = {one.vm: one for one in await self.driver.seen()}
        self._note_boots(seen.values())
        await self._report(wants, seen)
        for vm in wants:
            if vm not in self._busy and self._may_try(wants[vm]):
                self._begin(wants[vm], seen.get(vm))

    async def settled(self) -> None:
        """Wait until no step is under way."""
        while self._busy:
            await asyncio.wait(set(self._busy.values()))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.interval):
                await self._nudged.wait()
        except TimeoutError:
            pass
        self._nudged.clear()

    async def _guarded_look(self) -> None:
        """The outermost frame of the loop: one bad round is logged and must not be the last."""
        try:
            await self.look()
        except Exception:
            _log.exception("a round of the reconciler failed")

    async def _report(self, wants: dict[VmId, Want], seen: dict[VmId, Seen]) -> None:
        shown = [self._with_trouble(one) for one in seen.values()]
        unmade = [vm for vm in self._trouble if vm in wants and vm not in seen]
        shown += [self._with_trouble(Seen(vm, Phase.ABSENT)) for vm in unmade]
        gone = self._gone | {vm for vm, want in wants.items() if want.power is Power.ABSENT and vm not in seen}
        shown += [Seen(vm, Phase.ABSENT) for vm in sorted(gone - seen.keys() - set(unmade))]
        await self.report(shown)
        self._gone -= gone
        for vm in self._trouble.keys() - wants.keys():
            del self._trouble[vm]

    def _with_trouble(self, one: Seen) -> Seen:
        trouble = self._trouble.get(one.vm)
        if trouble is None or one.phase is Phase.FAILED:
            return one
        if one.phase in (Phase.RUNNING, Phase.PAUSED):  # it lives: only what was asked of it did not come true
            return replace(one, notice=trouble.detail)
        return replace(one, phase=Phase.FAILED, boot=trouble.boot, detail=trouble.detail)

    def _may_try(self, want: Want) -> bool:
        trouble = self._trouble.get(want.vm)
        if trouble is None:
            return True
        if (trouble.boot, trouble.power) != (want.boot, want.power):  # the owner asked for something new
            del self._trouble[want.vm]
            return True
        return self.clock.now() >= trouble.again_at

    def _begin(self, want: Want, seen: Seen | None) -> None:
        steps = plan(want, seen)
        if steps:
            self._busy[want.vm] = asyncio.create_task(self._carry_out(want, steps))

    async def _carry_out(self, want: Want, steps: Sequence[Step]) -> None:
        """The outermost frame of one VM's steps: its failure is reported and blocks no other VM."""
        try:
            async with self._places:
                for step in steps:
                    await self._measured(step, want)
            self._trouble.pop(want.vm, None)
            if steps == [Step.UPDATE]:
                return
        except Failure as failure:
            self._failed(want, failure.sentence, failure.detail)
        except Exception as error:
            _log.exception("a step broke", vm=want.vm)
            self._failed(want, "something went wrong on our side", str(error))
        finally:
            del self._busy[want.vm]
        self.nudge()

    async def _measured(self, step: Step, want: Want) -> None:
        began, result = time.perf_counter(), "failed"
        try:
            with self.telemetry.span(f"vm {step.value}", vm=want.vm, boot=want.boot):
                await self._do(step, want)
            result = "ok"
        finally:
            self.telemetry.step(step.value, result, time.perf_counter() - began)
        if step is Step.START:
            self._booting[want.vm] = began

    def _note_boots(self, seen: Iterable[Seen]) -> None:
        for one in seen:
            ended = one.phase in (Phase.RUNNING, Phase.FAILED, Phase.STOPPED)
            if ended and (began := self._booting.pop(one.vm, None)) is not None:
                result = "ok" if one.phase is Phase.RUNNING else "failed"
                self.telemetry.step("boot", result, time.perf_counter() - began)

    async def _do(self, step: Step, want: Want) -> None:
        match step:
            case Step.PREPARE:
                await self.driver.prepare(want)
            case Step.START:
                await self.driver.start(want)
            case Step.STOP:
                await self.driver.stop(want.vm)
            case Step.PAUSE:
                await self.driver.pause(want)
            case Step.RESUME:
                await self.driver.resume(want)
            case Step.GROW:
                await self.driver.grow(want)
            case Step.SNAPSHOTS:
                await self.driver.keep_snapshots(want)
            case Step.UPDATE:
                await self.driver.update(want)
            case Step.DESTROY:
                await self.driver.destroy(want.vm)
                self._gone.add(want.vm)

    def _failed(self, want: Want, sentence: str, detail: str) -> None:
        before = self._trouble.get(want.vm)
        backoff = FIRST_BACKOFF if before is None else min(LAST_BACKOFF, before.backoff * 2)
        again_at = self.clock.now() + backoff
        self._trouble[want.vm] = _Trouble(want.boot, want.power, sentence, again_at, backoff)
        _log.warning("a step failed", vm=want.vm, sentence=sentence, detail=detail, again_in=backoff)
