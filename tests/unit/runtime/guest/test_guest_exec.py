"""Programs in a guest: what they say, how they end, and that nothing of theirs blocks or outlives its purpose."""
from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from host_agent import HostAgent

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors, protocol
from ussycode.runtime.guest.execs import ExecSpec, ExecStream, Exit, ExitSignal, Stdout, open_exec, run
from ussycode.runtime.guest.streams import open_stream


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def read_until(program: ExecStream, wanted: bytes) -> bytes:
    """Output up to and with `wanted`; iteration may go on afterwards on a new iterator."""
    seen = b""
    async for event in program:
        assert isinstance(event, Stdout), event
        seen += event.data
        if wanted in seen:
            return seen
    raise AssertionError(seen)


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    return False


async def test_outputs_and_status_are_kept_apart(agent: HostAgent) -> None:
    done = await run(agent.addr, ExecSpec(cmd="echo out; echo err >&2; exit 7"))
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


async def test_a_program_ended_by_a_signal_says_which(agent: HostAgent) -> None:
    done = await run(agent.addr, ExecSpec(cmd="kill -SEGV $$"))
    assert done.signal == "SEGV"


async def test_a_login_user_s_environment(agent: HostAgent) -> None:
    done = await run(agent.addr, ExecSpec(cmd='echo "$HOME $USER $GREETING $MINE"', env=(("MINE", "a=b c"),)))
    me = pwd.getpwuid(os.getuid())
    assert done.stdout.decode() == f"{me.pw_dir} {me.pw_name} hello 'you' \"100%\" a=b c\n"


async def test_nothing_of_the_agent_s_own_leaks_into_programs(agent: HostAgent) -> None:
    done = await run(agent.addr, ExecSpec(cmd="ls /proc/self/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status"))
    fds, masks = done.stdout.split(b"SigBlk:")
    assert fds.split() == [b"0", b"1", b"2", b"3"]
    blocked, _, ignored = masks.split()
    # Signals 32 to 34 are the C library's own: it lets no program reset what its parent ignored of them.
    assert int(blocked, 16) == 0 and int(ignored, 16) & ~(0b111 << 31) == 0


async def test_working_folder(agent: HostAgent) -> None:
    assert (await run(agent.addr, ExecSpec(cmd="pwd", cwd="/usr/bin"))).stdout == b"/usr/bin\n"
    assert (await run(agent.addr, ExecSpec(cmd="pwd", cwd="/nowhere"))).status == 126


async def test_an_unknown_user_is_a_sentence(agent: HostAgent) -> None:
    with pytest.raises(Failure) as refused:
        await run(agent.addr, ExecSpec(cmd="true", user="nobody-of-that-name"))
    assert refused.value.error is errors.NO_USER


async def test_login_shell_on_request(agent: HostAgent) -> None:
    said = [await run(agent.addr, ExecSpec(cmd="echo $0", login=login)) for login in (False, True)]
    assert not said[0].stdout.startswith(b"-") and said[1].stdout.startswith(b"-")


async def test_megabytes_both_ways_at_once(agent: HostAgent) -> None:
    data = os.urandom(1 << 20) * 4
    done = await run(agent.addr, ExecSpec(cmd="cat"), stdin=data, limit=len(data))
    assert done.stdout == data


async def test_output_waits_for_its_reader_without_loss(agent: HostAgent) -> None:
    program = await open_exec(agent.addr, ExecSpec(cmd="head -c 8000000 /dev/zero | tr '\\0' x"))
    total = 0
    async for event in program:
        if isinstance(event, Stdout):
            total += len(event.data)
            if total < 500_000:
                await asyncio.sleep(0.01)
    assert total == 8_000_000
    await program.close()


async def test_a_signal_passes_stdin_that_nobody_reads(agent: HostAgent) -> None:
    script = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.01; done"
    program = await open_exec(agent.addr, ExecSpec(cmd=script))
    await read_until(program, b"ready")
    again = ExecStream(program.stream)
    writer = asyncio.create_task(again.write(b"x" * 2_000_000))
    await until(lambda: again._credit == 0)
    await again.signal("USR1")
    events = [event async for event in again]
    assert Stdout(b"caught\n") in events and events[-1] == Exit(5)
    await writer
    await program.close()


async def test_a_program_that_closes_its_stdin_does_not_stop_the_writer(agent: HostAgent) -> None:
    done = await run(agent.addr, ExecSpec(cmd="exec <&-; sleep 0.2; echo fine"), stdin=b"x" * 1_000_000)
    assert done.stdout == b"fine\n"


async def test_more_stdin_than_was_credited_ends_the_stream(agent: HostAgent) -> None:
    program = await open_exec(agent.addr, ExecSpec(cmd="sleep 60"))
    frame = protocol.encode_op(protocol.Op.STDIN, b"x" * protocol.MAX_DATA)
    with contextlib.suppress(ConnectionError):
        for _ in range(10):
            program.stream.writer.write(frame)
            await program.stream.writer.drain()
    with pytest.raises(Failure):
        async with asyncio.timeout(5):
            async for _ in program:
                pass
    await program.close()


async def test_a_background_child_does_not_keep_the_stream(agent: HostAgent) -> None:
    began = asyncio.get_running_loop().time()
    done = await run(agent.addr, ExecSpec(cmd="sleep 30 & echo $!"))
    assert asyncio.get_running_loop().time() - began < 3
    pid = int(done.stdout)
    assert alive(pid), "a child left behind on purpose lives on"
    os.kill(pid, 9)


async def test_a_terminal_of_the_asked_size_that_can_be_resized(agent: HostAgent) -> None:
    spec = ExecSpec(cmd="stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done",
                    pty=True, rows=30, cols=100)
    program = await open_exec(agent.addr, spec)
    assert b"30 100" in await read_until(program, b"ready")
    await program.resize(50, 132)
    assert b"50 132" in await read_until(program, b"132")
    await program.close()


async def test_control_c_and_control_d_on_a_terminal(agent: HostAgent) -> None:
    program = await open_exec(agent.addr, ExecSpec(cmd="echo ready; sleep 60", pty=True))
    await read_until(program, b"ready")
    await program.close()
    program = await open_exec(agent.addr, ExecSpec(cmd="cat; echo over", pty=True))
    await program.write(b"hello\n")
    await program.write_eof()
    assert b"over" in await read_until(program, b"over")
    await program.close()
    program = await open_exec(agent.addr, ExecSpec(cmd="echo ready; exec sleep 60", pty=True))
    await read_until(program, b"ready")
    again = ExecStream(program.stream)
    await again.write(b"\x03")
    assert [event async for event in again][-1] == ExitSignal("INT")
    await program.close()


async def test_an_interactive_shell(agent: HostAgent) -> None:
    program = await open_exec(agent.addr, ExecSpec(pty=True, env=(("PS1", "% "),)))
    await program.write(b"echo $((6*7)); exit 3\n")
    events = [event async for event in program]
    assert b"42" in b"".join(event.data for event in events if isinstance(event, Stdout))
    assert events[-1] == Exit(3)
    await program.close()


async def test_a_shell_on_a_terminal_begins_with_the_message_of_the_day(agent: HostAgent) -> None:
    (agent.root / "etc/motd").write_text("welcome here\n")

    async def said(**how: object) -> bytes:
        program = await open_exec(agent.addr, ExecSpec(**how))  # type: ignore[arg-type]
        await program.write(b"exit\n")
        out = b"".join([event.data async for event in program if isinstance(event, Stdout)])
        await program.close()
        return out

    assert (await said(pty=True)).startswith(b"welcome here\r\n")
    for how in ({"pty": True, "cmd": "true"}, {}, {"cmd": "sh -l"}):
        assert b"welcome" not in await said(**how), "a program's output is its own"
    home = agent.root / str(Path.home()).lstrip("/")
    home.mkdir()
    (home / ".hushlogin").touch()
    assert b"welcome" not in await said(pty=True)
    (home / ".hushlogin").unlink()
    (agent.root / "etc/motd").unlink()
    os.mkfifo(agent.root / "etc/motd")
    assert b"welcome" not in await said(pty=True), "and it does not hang on what is no file"


async def test_a_vanished_client_hangs_up_its_terminal(agent: HostAgent) -> None:
    program = await open_exec(agent.addr, ExecSpec(cmd="echo pid $$ end; sleep 60", pty=True))
    pid = int((await read_until(program, b"end")).split()[1])
    await program.close()
    await until(lambda: not alive(pid))


async def test_a_vanished_client_hangs_up_a_plain_command(agent: HostAgent) -> None:
    program = await open_exec(agent.addr, ExecSpec(cmd="echo pid $$ end; sleep 60"))
    pid = int((await read_until(program, b"end")).split()[1])
    await program.close()
    await until(lambda: not alive(pid))


async def test_tree_ends_even_what_hides_in_a_session_of_its_own(agent: HostAgent) -> None:
    script = "setsid nohup sh -c 'echo pid $$ end; trap \"\" HUP TERM; sleep 60; sleep 60' & wait"
    program = await open_exec(agent.addr, ExecSpec(cmd=script, tree=True))
    pid = int((await read_until(program, b"end")).split()[1])
    await program.close()
    await until(lambda: not alive(pid))


async def test_without_tree_a_detached_session_survives(agent: HostAgent) -> None:
    done = await run(agent.addr, ExecSpec(cmd="setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!"))
    assert alive(int(done.stdout))
    os.kill(int(done.stdout), 9)


async def test_a_tmux_outlives_the_terminal_it_was_started_on(agent: HostAgent, tmp_path: Path) -> None:
    """What tmux does: fork, a session of its own, no terminal; then the login ends."""
    script = "(setsid sh -c 'echo $$ > pid; exec sleep 60' </dev/null >/dev/null 2>&1 &) ; sleep 0.1; echo end"
    program = await open_exec(agent.addr, ExecSpec(cmd=script, pty=True, cwd=str(tmp_path)))
    async for _ in program:
        pass
    await program.close()
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    os.kill(pid, 9)


async def test_a_slow_reader_can_still_interrupt(agent: HostAgent) -> None:
    """Nobody takes the output of `yes`; ^C must reach it all the same."""
    program = await open_exec(agent.addr, ExecSpec(cmd="exec yes", pty=True))
    await program.write(b"\x03")
    async with asyncio.timeout(10):
        async for event in program:
            last = event
    assert last == ExitSignal("INT")
    await program.close()


async def test_noise_after_ok_ends_only_that_stream(agent: HostAgent) -> None:
    for noise in (b"\xff" * 100, b"\x00\xff\xff\xff\xff", b"\x08\0\0\0\x03abc" * 10, b"\x09\0\0\0\x04NOPE"):
        stream = await open_stream(agent.addr, ExecSpec(cmd="sleep 60").header())
        stream.writer.write(noise)
        await stream.close()
    assert (await run(agent.addr, ExecSpec(cmd="echo fine"))).stdout == b"fine\n"


async def test_a_slow_program_is_a_timeout(agent: HostAgent) -> None:
    with pytest.raises(Failure) as slow:
        await run(agent.addr, ExecSpec(cmd="sleep 60"), timeout=0.1)
    assert slow.value.error is errors.TIMEOUT
