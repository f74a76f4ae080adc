"""Whole screens over plain SSH: following VMs and acting on them, and reading the manual."""
from __future__ import annotations

import re

from tests.product.ssh_world import SshWorld, Tty
from ussycode.doors.ssh.fullscreen import named

HOME = "\x1b[H"


async def screen(tty: Tty, pattern: str) -> str:
    """The last whole drawing up to a match of `pattern`."""
    return (await tty.until(pattern)).rpartition(HOME)[2]


async def test_following_vms_and_acting_on_them(place: SshWorld) -> None:
    olive = await place.member("olive")
    for name in ("demo", "shop"):
        await place.vm(olive, name)
    async with olive.terminal("-t", "host", "ls --watch", size=(24, 150)) as tty:
        await tty.until(re.escape("\x1b[?1049h"))
        assert "shop" in await screen(tty, r"> demo\s+running[\s\S]*q quit")
        tty.type("j")
        await screen(tty, r"> shop\s+running")
        tty.type("x")
        await screen(tty, r"> shop\s+stopped[\s\S]*shop is stopped")
        tty.type("s")
        await screen(tty, r"> shop\s+running[\s\S]*shop is running")
        tty.type("d")
        await screen(tty, r"delete shop\?")
        tty.type("n")
        await screen(tty, "shop stays")
        tty.type("dy")
        await screen(tty, "removed shop")
        await screen(tty, r"> demo\s+running")
        tty.type("q")
        await tty.until(re.escape("\x1b[?25h\x1b[?1049l"))
        assert await tty.ended() == 0


async def test_what_happens_elsewhere_is_seen_within_seconds(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with olive.terminal("host", size=(24, 150)) as tty:
        await tty.until("▶ ")
        tty.type("ls --watch 'de*'\r")
        await screen(tty, r"> demo\s+running")
        await olive.ssh("host", "stop", "demo")
        await screen(tty, r"> demo\s+stopped")
        tty.type("\x1b")
        await tty.until("▶ ")
        tty.type("whoami\r")
        await tty.until("olive")


async def test_a_shell_opens_from_the_screen_and_comes_back_to_it(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with olive.terminal("-t", "host", "ls --watch", size=(24, 150)) as tty:
        await screen(tty, r"> demo\s+running[\s\S]*q quit")
        tty.type("\r")
        await tty.until(re.escape("\x1b[?1049l"))
        tty.type("echo in$((1+1))side\n")
        await tty.until("in2side\r")
        tty.type("exit\n")
        await screen(tty, r"> demo\s+running[\s\S]*q quit")
        tty.type("\x03")
        assert await tty.ended() == 0


async def test_without_a_terminal_they_are_listed_once(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    assert (await olive.ssh("host", "ls --watch")).text == (await olive.ssh("host", "ls")).text


async def test_a_long_page_of_the_manual_is_read_a_screen_at_a_time(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host", size=(12, 80)) as tty:
        await tty.until("▶ ")
        tty.type("doc first-vm\r")
        first = await screen(tty, r"\d+ %")
        assert "doc first-vm" in first and "q to quit" in first
        tty.type(" ")
        assert await screen(tty, r"\d+ %") != first
        tty.type("G")
        await screen(tty, r"\nend\x1b\[K")
        tty.type("q")
        await tty.until("▶ ")


async def test_a_tall_terminal_and_a_pipe_get_the_page_itself(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host", size=(290, 80)) as tty:
        await tty.until("▶ ")
        tty.type("doc first-vm\r")
        assert "\x1b[?1049h" not in await tty.until("▶ ")
    assert "\x1b" not in (await olive.ssh("host", "doc first-vm")).text


def test_keys_are_named_and_unknown_sequences_dropped() -> None:
    assert named(b"jk\x1b[A\x1b[6~q") == ["j", "k", "up", "forth", "q"]
    assert named(b"\x1b[15~") == [] and named(b"") == ["gone"] and named(b"\x00\xff") == ["�"]
