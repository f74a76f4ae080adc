"""What the reconciler decides to do, case by case."""
from __future__ import annotations

import pytest

from ussycode.runtime.driver import Phase, Power, Seen, Want
from ussycode.runtime.plan import Step, plan

VM = "vm_aaaaaaaaaaaaaaaa"


def wish(power: Power, boot: int = 1) -> Want:
    return Want(
        vm=VM, name="demo", number=2, power=power, boot=boot, image="debian-min", vcpus=1, memory_mib=512,
        disk_gib=5, env=(), authorized_keys=(), secret="ab" * 32,
    )


def seen(phase: Phase, boot: int = 1) -> Seen:
    return Seen(VM, phase, boot)


def test_a_vm_nobody_wishes_for_is_never_destroyed() -> None:
    for phase in Phase:
        assert plan(None, seen(phase)) == []


def test_a_new_vm_is_prepared_and_started() -> None:
    assert plan(wish(Power.RUNNING), None) == [Step.PREPARE, Step.START]
    assert plan(wish(Power.RUNNING), seen(Phase.PREPARED, 0)) == [Step.START]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.STOPPED])
def test_a_vm_that_ended_by_itself_waits_for_the_owner(phase: Phase) -> None:
    assert plan(wish(Power.RUNNING, boot=3), seen(phase, boot=3)) == []
    assert plan(wish(Power.RUNNING, boot=4), seen(phase, boot=3)) == [Step.PREPARE, Step.START]


def test_a_vm_that_the_platform_stopped_starts_again_when_wanted() -> None:
    assert plan(wish(Power.RUNNING, boot=3), seen(Phase.STOPPED, boot=0)) == [Step.PREPARE, Step.START]


def test_a_restart_stops_first() -> None:
    for phase in (Phase.RUNNING, Phase.STARTING):
        assert plan(wish(Power.RUNNING, 2), seen(phase, 1)) == [Step.STOP, Step.PREPARE, Step.START]


def test_a_running_vm_is_only_told_news() -> None:
    assert plan(wish(Power.RUNNING), seen(Phase.RUNNING)) == [Step.UPDATE]
    assert plan(wish(Power.RUNNING), seen(Phase.STARTING)) == []


def test_stop_reaches_stopped_from_everywhere() -> None:
    for phase in (Phase.RUNNING, Phase.STARTING, Phase.FAILED, Phase.PREPARED):
        assert plan(wish(Power.STOPPED), seen(phase)) == [Step.STOP]
    assert plan(wish(Power.STOPPED), None) == [Step.PREPARE, Step.STOP]
    assert plan(wish(Power.STOPPED), seen(Phase.STOPPED)) == []


def test_removal_destroys_whatever_is_there() -> None:
    for phase in (Phase.RUNNING, Phase.STARTING, Phase.FAILED, Phase.PREPARED, Phase.STOPPED):
        assert plan(wish(Power.ABSENT), seen(phase)) == [Step.DESTROY]
    assert plan(wish(Power.ABSENT), None) == []
