"""The guest program in a real machine: from power on to power off, with an image that offers nothing but busybox."""
from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.guest_machine import SECRET, Machine, busybox_disk, machine
from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.execs import ExecSpec, Exit, Stdout, open_exec, run
from ussycode.runtime.guest.listeners import listen_tcp, listen_unix
from ussycode.runtime.guest.streams import GuestAddress, dial, put_file
from ussycode.runtime.kernel import BootFiles

RELAY = Path(__file__).parent.parent / "unit/runtime/guest/sftp_relay.py"


@pytest.fixture
async def vm(boot: BootFiles, live_data: Path, tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine(boot, busybox_disk(live_data / "cache", tmp_path), tmp_path) as running:
        yield running


async def text(vm: Machine, cmd: str, **changes: object) -> str:
    done = await run(vm.addr, ExecSpec(cmd=cmd, **changes))  # type: ignore[arg-type]
    assert done.status == 0, done
    return done.stdout.decode().strip()


async def test_a_life_from_hello_to_power_off(vm: Machine) -> None:
    assert not (await vm.channel.ready(5)).configured
    await vm.channel.configure(vm.identity())
    assert await text(vm, "hostname; id -un; id -Gn; pwd") == "demo\nussy\nussy staff\n/home/ussy"
    assert await text(vm, "echo $GREETING") == "hello there"
    assert await text(vm, "cat /etc/machine-id; cat /proc/sys/kernel/hostname") == "ab" * 16 + "\ndemo"
    assert abs(int(await text(vm, "date +%s")) - vm.channel.clock.now()) < 5
    await _grown(vm)
    await _reachable_from_the_host_only(vm)
    await _dials(vm)
    await _listens(vm)
    await _files(vm)
    await _tree(vm)
    await _reaps(vm)
    await _thaws_by_itself(vm)
    stats = await vm.channel.stats()
    assert 0 < stats.memory_available < stats.memory_total < 256 << 20
    await vm.channel.shutdown()
    assert await asyncio.wait_for(vm.process.wait(), 15) == 0


async def _grown(vm: Machine) -> None:
    async with asyncio.timeout(10):
        while (await vm.channel.stats()).disk_total < 48 << 20:
            await asyncio.sleep(0.05)


async def _reachable_from_the_host_only(vm: Machine) -> None:
    for address in ("127.0.0.1", vm.address):
        hello = f"printf 'USSY1 {SECRET}\\0\\0\\0\\0'"
        done = await run(vm.addr, ExecSpec(cmd=f"({hello}; sleep 0.3) | nc -w 2 {address} 1021"))
        assert done.stdout == b"", f"a program in the guest reached the agent at {address}"
    with pytest.raises(Failure) as refused:
        await dial(GuestAddress(vm.address, "00" * 32), port=80)
    assert refused.value.error is errors.AUTH


async def _dials(vm: Machine) -> None:
    await text(vm, "mkdir -p www; echo welcome > www/index.html; httpd -p 127.0.0.1:8000 -h www", cwd="/home/ussy")
    await text(vm, f"httpd -p {vm.address}:8001 -h www")
    for port in (8000, 8001):
        stream = await dial(vm.addr, port=port)
        stream.writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await stream.reader.read(-1)).endswith(b"welcome\n")
        await stream.close()
    assert {(p.port, p.address) for p in await vm.channel.ports()} == {(8000, "127.0.0.1"), (8001, vm.address)}
    with pytest.raises(Failure) as refused:
        await dial(vm.addr, port=9)
    assert refused.value.error is errors.REFUSED


async def _listens(vm: Machine) -> None:
    private = await listen_unix(vm.addr)
    assert await text(vm, f"stat -c %U:%a {Path(private.path).parent}") == "ussy:700"
    await private.close()
    with pytest.raises(Failure) as denied:
        await listen_unix(vm.addr, "/etc/agent.sock")
    assert denied.value.error is errors.DENIED
    remote = await listen_tcp(vm.addr, 0)
    asking = asyncio.create_task(text(vm, f"nc 127.0.0.1 {remote.port} </dev/null"))
    stream = await anext(aiter(remote))
    stream.writer.write(b"from outside\n")
    await stream.close()
    assert await asking == "from outside"
    await remote.close()


async def _files(vm: Machine) -> None:
    data = os.urandom(1 << 20)
    await put_file(vm.addr, "/home/ussy/data", data, mode=0o600, uid=1000, gid=1000)
    assert await text(vm, "stat -c %U:%G:%a:%s data") == "ussy:ussy:600:1048576"
    batch = "put {0} copy\nget copy {1}\n-get /root/secret {1}.no\n".format(vm.folder / "up", vm.folder / "back")
    (vm.folder / "up").write_bytes(data)
    env = {**os.environ, "GUEST_STREAM": f"{vm.address} 1021 {SECRET}"}
    await asyncio.to_thread(
        subprocess.run, ["sftp", "-b", "-", "-D", f"{sys.executable} {RELAY}"], input=batch.encode(), env=env,
        check=True, capture_output=True, timeout=30)
    assert (vm.folder / "back").read_bytes() == data
    assert await text(vm, "stat -c %U copy") == "ussy", "sftp must run as the login user"


async def _tree(vm: Machine) -> None:
    script = "setsid sleep 777 & setsid setsid sleep 777 & echo on; wait"
    program = await open_exec(vm.addr, ExecSpec(cmd=script, tree=True))
    async for event in program:
        if isinstance(event, Stdout):
            break
    await program.close()
    async with asyncio.timeout(10):
        while (await run(vm.addr, ExecSpec(cmd="pgrep -f 'sleep 777' | grep -v $$"))).stdout:
            await asyncio.sleep(0.05)


async def _reaps(vm: Machine) -> None:
    await text(vm, "for i in 1 2 3; do (setsid true &) ; done; sleep 0.2")
    assert "Z" not in await text(vm, "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f3 | sort -u")


async def _thaws_by_itself(vm: Machine) -> None:
    """A host that held it still and then died must not leave it so."""
    await vm.channel.freeze()
    await vm.channel.close()
    began = time.monotonic()
    await text(vm, "echo written > /home/ussy/late && sync")
    assert 1 < time.monotonic() - began < 20, "the write waited, and not for ever"
    vm.channel.start()
    await vm.channel.ready(5)


async def test_an_image_without_a_shell_still_runs_commands(boot: BootFiles, live_data: Path, tmp_path: Path) -> None:
    disk = busybox_disk(live_data / "cache", tmp_path, shell=False)
    async with machine(boot, disk, tmp_path) as vm:
        await vm.channel.configure(vm.identity(grow=False))
        assert await text(vm, "busybox echo 'one two'  \"three\" fo\\ ur") == "one two three fo ur"
        assert (await run(vm.addr, ExecSpec(cmd="nothing-there"))).status == 127
        with pytest.raises(Failure) as refused:
            await open_exec(vm.addr, ExecSpec(pty=True))
        assert refused.value.error is errors.NO_SHELL


async def test_the_host_may_return_to_a_running_machine(vm: Machine) -> None:
    """A restart of the control plane: another channel on the same socket finds the agent configured."""
    await vm.channel.configure(vm.identity())
    program = await open_exec(vm.addr, ExecSpec(cmd="read line; echo got $line; exit 4"))
    await vm.channel.close()
    vm.channel.start()
    assert (await vm.channel.ready(10)).configured
    await program.write(b"it\n")
    assert [event async for event in program] == [Stdout(b"got it\n"), Exit(4)]
    await program.close()
