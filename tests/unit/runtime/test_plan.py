"""What the reconciler decides to do, case by case."""
from __future__ import annotations

from dataclasses import replace

import pytest

from ussycode.runtime.driver import Origin, OriginKind, Phase, Power, Seen, Snapshot, Want
from ussycode.runtime.plan import Step, plan

VM = "vm_aaaaaaaaaaaaaaaa"


def wish(power: Power, boot: int = 1) -> Want:
    return Want(
        vm=VM, name="demo", number=2, power=power, boot=boot, image="debian-min", vcpus=1, memory_mib=512,
        disk_gib=5, env=(), authorized_keys=(), secret="ab" * 32,
    )


def seen(phase: Phase, boot: int = 1, **more: object) -> Seen:
    return replace(Seen(VM, phase, boot, disk_turn=1, disk_gib=5), **more)  # type: ignore[arg-type]


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


def test_a_pause_waits_for_a_running_guest_and_holds() -> None:
    assert plan(wish(Power.PAUSED), seen(Phase.RUNNING)) == [Step.PAUSE]
    for phase in (Phase.STARTING, Phase.PAUSED, Phase.STOPPED, Phase.FAILED):
        assert plan(wish(Power.PAUSED), seen(phase)) == []


def test_a_paused_vm_resumes_or_starts_afresh_when_a_restart_was_asked_for() -> None:
    assert plan(wish(Power.RUNNING), seen(Phase.PAUSED)) == [Step.RESUME]
    assert plan(wish(Power.RUNNING, 2), seen(Phase.PAUSED, 1)) == [Step.STOP, Step.PREPARE, Step.START]
    assert plan(wish(Power.STOPPED), seen(Phase.PAUSED)) == [Step.STOP]


def test_a_restored_disk_replaces_the_old_one_while_nothing_runs() -> None:
    restored = Origin(OriginKind.SNAPSHOT, VM, "snap_1")
    running = replace(wish(Power.RUNNING, 2), disk_turn=2, origin=restored)
    assert plan(running, seen(Phase.RUNNING, 1)) == [Step.STOP, Step.PREPARE, Step.START]
    stopped = replace(wish(Power.STOPPED), disk_turn=2, origin=restored)
    assert plan(stopped, seen(Phase.STOPPED)) == [Step.PREPARE]
    assert plan(stopped, seen(Phase.STOPPED, disk_turn=2)) == []


def test_disks_grow_and_never_shrink() -> None:
    for phase in (Phase.RUNNING, Phase.STOPPED):
        assert Step.GROW in plan(replace(wish(Power.RUNNING), disk_gib=8), seen(phase))
    assert Step.GROW not in plan(replace(wish(Power.RUNNING), disk_gib=3), seen(Phase.RUNNING))
    assert Step.GROW not in plan(replace(wish(Power.PAUSED), disk_gib=8), seen(Phase.PAUSED))


def test_snapshots_are_taken_and_dropped_by_name_alone() -> None:
    kept = (Snapshot("snap_1", 0.0, 1), Snapshot("snap_2", 0.0, 1))
    for want, there in (
        (replace(wish(Power.RUNNING), snapshots=("snap_1",)), ()),
        (replace(wish(Power.STOPPED), dropped=("snap_2",)), kept),
    ):
        assert Step.SNAPSHOTS in plan(want, seen(Phase.STOPPED, snapshots=there))
    assert Step.SNAPSHOTS not in plan(wish(Power.RUNNING), seen(Phase.RUNNING, snapshots=kept))
