"""Commands, background processes and files in a real VM, through the package's two clients."""
from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import exedev
import pytest

from tests.conformance.conftest import Cloud
from tests.conformance.driven import Driven

covers = pytest.mark.covers
pytestmark = pytest.mark.timeout(300)


@covers("VM.run")
def test_a_command_has_its_own_outputs_and_status(vm: Driven) -> None:
    done = vm.run("echo out; echo err >&2; exit 7")
    assert (done.exit_code, done.stdout, done.stderr, done.ok) == (7, "out\n", "err\n", False)
    assert vm.run(["printf", "%s|", "a b", "it's", "$HOME", "ü"]).stdout == "a b|it's|$HOME|ü|"
    assert vm.run("pwd; echo $X $COLOUR", cwd="/tmp", env={"X": "1 'two'"}).stdout == "/tmp\n1 'two' light blue\n"
    assert vm.run('printf %s "$POEM"').stdout == "one\ntwo 'three'"
    assert vm.run(r"printf '\377\000x'").stdout_bytes == b"\xff\0x"
    assert vm.run("whoami; echo ~").stdout == "ussy\n/home/ussy\n"
    with pytest.raises(exedev.CommandError) as failed:
        vm.run("echo why >&2; false", check=True)
    assert (failed.value.result.exit_code, failed.value.result.stderr) == (1, "why\n")
    assert vm.run("kill -TERM $$").exit_code == 128 + 15


def test_lines_are_told_as_they_arrive(vm: Driven) -> None:
    out: list[str] = []
    err: list[str] = []
    done = vm.run("for i in 1 2 3; do echo $i; sleep 0.2; done; printf last; echo oops >&2",
                  on_stdout=out.append, on_stderr=err.append, capture=False)
    assert (out, err, done.stdout, done.captured) == (["1", "2", "3", "last"], ["oops"], "", False)


def test_much_output_arrives_whole_and_too_much_is_an_error(vm: Driven) -> None:
    assert len(vm.run("head -c 4000000 /dev/zero").stdout_bytes) == 4_000_000
    with pytest.raises(exedev.OutputLimitError) as over:
        vm.run("head -c 100000 /dev/zero", max_output=50_000)
    assert len(over.value.stdout_bytes) <= 50_000


def test_a_command_line_longer_than_a_request_is_uploaded(vm: Driven) -> None:
    words = ["x" * 1000] * 100
    assert vm.run(["printf", "%s", *words]).stdout == "".join(words)


def left(vm: Driven, seconds: str) -> str:
    return str(vm.run(f"pgrep -f '^sleep {seconds}$'").stdout)


def until_gone(vm: Driven, seconds: str) -> None:
    deadline = time.monotonic() + 30
    while left(vm, seconds):
        assert time.monotonic() < deadline, f"sleep {seconds} is still there"


def test_a_timeout_ends_the_command_and_all_it_started(vm: Driven) -> None:
    with pytest.raises(exedev.CommandTimeoutError) as late:
        vm.run("echo begun; sleep 4001 & setsid sleep 4001 & wait", timeout=4)
    assert isinstance(late.value, TimeoutError) and late.value.stdout == "begun\n"
    until_gone(vm, "4001")


def test_an_exception_of_the_caller_ends_the_command_too(vm: Driven) -> None:
    class EnoughError(Exception):
        pass

    def enough(line: str) -> None:
        assert line == "begun"
        raise EnoughError

    with pytest.raises(EnoughError):
        vm.run("sleep 4002 & setsid sleep 4002 & echo begun; wait", on_stdout=enough)
    until_gone(vm, "4002")


@pytest.mark.parametrize("cloud", ["async"], indirect=True)
def test_a_cancelled_task_ends_the_command_too(cloud: Cloud, vm: Driven) -> None:
    if cloud.flavour == "sync":
        return
    began = asyncio.Event()

    async def cancel() -> None:
        task = asyncio.ensure_future(vm._inner.run("echo begun; sleep 4003", on_stdout=lambda _: began.set()))
        await asyncio.wait_for(began.wait(), 60)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    cloud.loop.run(cancel())
    until_gone(vm, "4003")


@pytest.mark.parametrize("cloud", ["async"], indirect=True)
def test_many_commands_at_once(cloud: Cloud, vm: Driven) -> None:
    async def all_at_once() -> list[str]:
        done = await asyncio.gather(*(vm._inner.run(f"echo {n}") for n in range(12)))
        return [one.stdout for one in done]

    assert cloud.loop.run(all_at_once()) == [f"{n}\n" for n in range(12)]


@covers("VM.spawn", "VM.process", "VM.processes", "Process.pid", "Process.exit_code", "Process.poll", "Process.wait",
        "Process.logs")
def test_a_background_process_outlives_its_client_and_is_found_again(cloud: Cloud, vm: Driven) -> None:
    name = f"job-{cloud.flavour}"
    with cloud.client() as passing:
        began = passing.vm(vm.name).spawn(
            "echo one; echo $Y; echo err >&2; while [ ! -e $PWD/$GO ]; do sleep 0.2; done; exit 5",
            name=name, env={"Y": "two", "GO": f"go-{name}"}, cwd="/tmp",
        )
        assert began.pid > 1 and began.exit_code is None
    process = vm.process(name)
    assert process.poll() is None and process.pid == began.pid
    assert name in [p._inner.name for p in vm.processes()]
    with pytest.raises(exedev.ExeError, match="already running"):
        vm.spawn("true", name=name)
    with pytest.raises(TimeoutError):
        process.wait(timeout=1)
    vm.write_file(f"/tmp/go-{name}", "")
    done = process.wait()
    assert (done.exit_code, done.stdout, done.stderr) == (5, "one\ntwo\n", "err\n")
    assert (process.exit_code, vm.process(name).poll()) == (5, 5)
    assert process.logs() == exedev.Logs("one\ntwo\n", "err\n")
    assert process.logs(tail=1).stdout == "two\n"
    with pytest.raises(exedev.CommandError):
        process.wait(check=True, capture=False)
    with pytest.raises(ProcessLookupError):
        vm.process("nothere")


@covers("Process.send_signal", "Process.terminate", "Process.kill", "Process.__enter__", "Process.__exit__")
def test_background_processes_are_signalled_with_all_they_started(vm: Driven) -> None:
    trapping = vm.spawn("trap 'echo caught; exit 9' USR1; sleep 4004 & wait")
    vm.run("until pgrep -f '^sleep 4004$' >/dev/null; do sleep 0.1; done", timeout=60)
    trapping.send_signal("USR1")
    assert (trapping.wait().exit_code, trapping.logs().stdout) == (9, "caught\n")
    for how, number in (("terminate", 15), ("kill", 9)):
        process = vm.spawn("sleep 4005 & sleep 4005")
        getattr(process, how)()
        assert process.wait().exit_code == 128 + number
    with vm.spawn("sleep 4006") as process:
        assert process.poll() is None
    assert process.wait().exit_code == 128 + 9
    until_gone(vm, "4006")


@covers("VM.write_file", "VM.read_file")
def test_files_of_any_size_come_back_as_they_were(vm: Driven) -> None:
    for size in (0, 1, 40_000, 300_000):
        data = os.urandom(size)
        vm.write_file(f"data/{size}", data)
        assert vm.read_file(f"data/{size}") == data
    vm.write_file("~/bin/hello", "#!/bin/sh\necho hällo\n" * 9000, mode=0o750)
    assert vm.run("stat -c %a ~/bin/hello").stdout == "750\n"
    assert vm.run("~/bin/hello | tail -1").stdout == "hällo\n"
    with pytest.raises(FileNotFoundError):
        vm.read_file("/no/such/file")
    with pytest.raises(IsADirectoryError):
        vm.read_file("/etc")
    with pytest.raises(exedev.CommandError):
        vm.write_file("/etc/shadow", "mine")


@covers("VM.upload", "VM.download")
def test_folders_go_up_and_come_down(vm: Driven, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "big").write_bytes(os.urandom(200_000))
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "left.pyc").write_text("")
    vm.upload(source, "work/project", exclude=["*.pyc"])
    vm.download("work/project", target)
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*")) == ["run", "sub", "sub/big"]
    assert (target / "sub" / "big").read_bytes() == (source / "sub" / "big").read_bytes()
    assert (target / "run").stat().st_mode & 0o777 == 0o755
    vm.upload(source / "run", "one-file")
    vm.download("one-file", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "#!/bin/sh\n"
    with pytest.raises(FileNotFoundError):
        vm.download("nothere", tmp_path / "none")
    vm.run("rm -rf work one-file data bin")
