"""The lobby as a person with an OpenSSH client meets it."""
from __future__ import annotations

import json

from tests.product.ssh_world import SshWorld
from ussycode.dispatch import Call, run
from ussycode.identity import ops as identity


async def test_one_shot_commands_end_with_the_status_of_what_happened(place: SshWorld) -> None:
    olive = await place.member("olive")
    assert (await olive.ssh("host", "whoami")).text.startswith("olive (newbie)\n")
    done = await olive.ssh("host", "restart nothere")
    assert (done.status, done.text) == (1, "") and done.said.startswith("error: no VM named nothere\n")
    assert (await olive.ssh("host", "new", "--colour")).status == 2
    done = await olive.ssh("host", "frobnicate")
    assert (done.status, done.text) == (127, "") and "unknown command: frobnicate" in done.said
    assert (await olive.ssh("host", "ls 'open")).status == 2


async def test_output_without_a_terminal_is_plain_text_with_lf(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    for line in ("help", "ls -l", "whoami", "help new", "nonsense"):
        done = await olive.ssh("host", line)
        assert b"\x1b" not in done.out + done.err and b"\r" not in done.out + done.err, line


async def test_json_is_one_document_on_stdout_for_success_and_failure(place: SshWorld) -> None:
    olive = await place.member("olive")
    done = await olive.ssh("host", "ls --json")
    assert json.loads(done.out) == {"vms": []} and not done.err
    done = await olive.ssh("host", "restart nothere --json")
    told = json.loads(done.out)
    assert done.status == 1 and not done.err
    assert (told["error"], told["code"]) == ("no VM named nothere", "vm.unknown") and told["hint"]


async def test_quotes_reach_the_command_as_typed(place: SshWorld) -> None:
    olive = await place.member("olive")
    done = await olive.ssh("host", "new", "--name", "demo", "--env", "'A=x  y \"z\"'")
    assert done.status == 0, done
    (want,) = [v.env for v in await place.base.app.db.read(_everything)]
    assert want == (("A", 'x  y "z"'),)


def _everything(tx: object) -> list[object]:
    from ussycode.vms import store

    return list(store.everything(tx))  # type: ignore[arg-type]


async def test_a_key_can_be_piped_in(place: SshWorld) -> None:
    olive, other = await place.member("olive"), await place.stranger("laptop")
    added = await olive.ssh("host", "ssh-key add", stdin=other.key.line.encode() + b" laptop\n")
    assert added.status == 0 and added.text.startswith("added laptop ")
    assert (await other.ssh("olive@host", "whoami")).text.startswith("olive")


async def test_lines_piped_into_the_lobby_are_run_one_by_one(place: SshWorld) -> None:
    olive = await place.member("olive")
    done = await olive.ssh("-T", "host", stdin=b"whoami\nls\nnonsense")
    assert done.text.startswith("olive (newbie)") and "no VMs yet" in done.text and done.status == 127


async def test_files_sent_to_the_lobby_are_refused_with_a_sentence(place: SshWorld) -> None:
    olive = await place.member("olive")
    file = olive.home / "key.pub"
    for argv in (["scp"], ["scp", "-O"]):
        done = await olive.run(*argv, *olive.options, str(file), "host:")
        assert done.status != 0 and "VM" in done.said, argv
    done = await olive.run("sftp", *olive.options, "host")
    assert done.status != 0 and "name a VM" in done.said
    done = await olive.run("rsync", "-e", " ".join(["ssh", *olive.options]), str(file), "host:x")
    assert done.status != 0 and "rsync needs a VM" in done.said


async def test_the_prompt_greets_completes_remembers_and_leaves(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with olive.terminal("host") as tty:
        greeting = await tty.until("▶ ")
        assert "welcome back, " in greeting and "1 VM, 1 running." in greeting
        tty.type("who\t")
        await tty.until("whoami ")
        tty.type("\r")
        await tty.until(r"olive\S* \(newbie\)")
        await tty.until("▶ ")
        tty.type("\x1b[A")
        await tty.until("whoami")
        tty.type("\x03")
        await tty.until(r"\^C[\s\S]*▶ ")
        tty.type("restart de\t")
        await tty.until("restart demo ")
        tty.type("\x15re\t")
        await tty.until(r"rename\s+resize\s+restart")
        tty.type("\x15nonsense\r")
        await tty.until("unknown command: nonsense")
        await tty.until("▶ ")
        tty.type("\x04")
        assert await tty.ended() == 0


async def test_the_greeting_tells_what_went_wrong_meanwhile(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    (vm,) = place.base.driver.vms
    place.base.driver.crash(vm, "the guest's kernel panicked", "Kernel panic")
    await place.base.loop.look()
    async with olive.terminal("host") as tty:
        assert "demo: the guest's kernel panicked; why demo" in await tty.until("▶ ")


async def test_a_failures_id_is_the_one_of_the_log(place: SshWorld) -> None:
    olive = await place.member("olive")
    found = await identity.recognise(place.app, olive.key.fingerprint)
    assert found is not None
    call = Call(found[0], ("restart", "nothere"), "test")
    assert (await run(place.app, call)).request_id == call.request_id
    told = [json.loads((await olive.ssh("host", "restart nothere --json")).out)["request_id"] for _ in range(2)]
    assert told[0] != told[1] and all(told)


async def test_exit_leaves_the_prompt(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("exit\r")
        await tty.until("goodbye")
        assert await tty.ended() == 0


async def test_a_dumb_terminal_gets_no_escapes(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host", term="dumb") as tty:
        await tty.until("ussycode > ")
        tty.type("whoami\r")
        await tty.until("ussycode > ")
        tty.type("exit\r")
        await tty.ended()
        assert "\x1b" not in tty.all and "▶" not in tty.all


async def test_lines_of_an_earlier_visit_come_back_with_the_arrow_keys(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("whoami --json\r")
        await tty.until("user_id")
        await tty.until("▶ ")
        tty.type("\x04")
        await tty.ended()
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("typed\x1b[A")
        await tty.until("whoami --json")
        tty.type("\x1b[B")
        await tty.until("typed")
        tty.type("\x03")
        await tty.until(r"\^C[\s\S]*▶ ")
        tty.type("\x10\r")
        await tty.until("user_id")


async def test_a_paste_of_several_lines_waits_for_a_yes(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host") as tty:
        greeting = await tty.until("▶ ")
        assert "\x1b[?2004h" in greeting
        tty.type("\x1b[200~rm demo\nrm shop\x1b[201~")
        await tty.until("2 pasted lines: Enter runs them, Ctrl-C forgets them")
        tty.type("\x03")
        assert "no VM named" not in await tty.until("forgotten[\\s\\S]*▶ ")
        tty.type("\x1b[200~whoami\nnonsense\nhelp ls\x1b[201~")
        await tty.until("3 pasted lines")
        tty.type("\r")
        await tty.until(r"olive\S* \(newbie\)")
        assert "List your VMs" not in await tty.until("unknown command: nonsense[\\s\\S]*▶ ")
        tty.type("\x1b[200~whoa\x1b[201~mi\r")
        await tty.until(r"olive\S* \(newbie\)")
        tty.type("exit\r")
        await tty.ended()
        assert tty.all.count("\x1b[?2004h") == tty.all.count("\x1b[?2004l")


async def test_a_key_may_be_pasted_where_input_is_asked_for(place: SshWorld) -> None:
    olive, other = await place.member("olive"), await place.stranger("laptop")
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("ssh-key add\r")
        await tty.until("ssh-key add")
        tty.type(f"\x1b[200~{other.key.line} laptop\n\x1b[201~")
        await tty.until("added laptop ")


async def test_no_color_keeps_the_prompt_and_drops_the_colours(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("-o", "SetEnv=NO_COLOR=1", "host") as tty:
        await tty.until("▶ ")
        tty.type("help\r")
        await tty.until("VMS[\\s\\S]*▶ ")
        assert "\x1b[3" not in tty.all and "\x1b[1m" not in tty.all


async def test_tab_knows_tags_and_flags(place: SshWorld) -> None:
    olive = await place.member("olive")
    await olive.ssh("host", "new", "--name", "demo", "--tag", "prod")
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("tag -d demo pr\t")
        await tty.until("tag -d demo prod ")
        tty.type("\x15new --temp\t")
        await tty.until("new --template ")
        tty.type("st\t")
        await tty.until("static ")
