"""What the package tells when a command's end is unknown, and what goes on in spite of it."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import exedev
import pytest

from tests.conformance.conftest import Cloud
from tests.conformance.driven import Driven
from tests.conformance.test_commands_in_vms import until_gone
from tests.live.rig import until
from tests.live.test_main_loop import processes

pytestmark = pytest.mark.timeout(300)


@contextmanager
def meanwhile(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A call that goes on in a thread of its own."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(call, *args, **options)


def kill_control(cloud: Cloud) -> None:
    pid = processes(cloud.platform)["control"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: processes(cloud.platform).get("control") not in (None, pid), 60, "a new control")


@pytest.mark.parametrize("cloud", ["sync"], indirect=True)
def test_a_crash_of_the_control_process_interrupts_commands_but_no_background_process(cloud: Cloud, vm: Driven) -> None:
    process = vm.spawn("sleep 7001; echo done")
    running = Event()
    waiting: Future[Any]
    with meanwhile(process.wait) as waiting:
        with meanwhile(vm.run, "echo begun; sleep 7002", on_stdout=lambda _: running.set()) as ran:
            assert running.wait(60)
            kill_control(cloud)
            with pytest.raises(exedev.CommandInterruptedError) as lost:
                ran.result(60)
            assert lost.value.stdout == "begun\n"
        until_gone(vm, "7002")
        vm.run("pkill -f '^sleep 7001$'")
        assert waiting.result(60).stdout == "done\n"


@pytest.mark.parametrize("cloud", ["async"], indirect=True)
def test_a_vm_that_restarts_or_goes_interrupts_its_commands(far: Driven) -> None:
    vm = far.new(name="brief")
    for end in (lambda: vm.restart(flush=False), vm.delete):
        running = Event()
        with meanwhile(vm.run, "echo begun; sleep 7003", on_stdout=lambda _, seen=running: seen.set()) as ran:
            assert running.wait(60)
            end()
            with pytest.raises(exedev.CommandInterruptedError):
                ran.result(60)
    with pytest.raises(exedev.NotFoundError):
        vm.run("true")
