"""Nothing that somebody else wrote may steer a terminal."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.base.errors import Failure
from ussycode.doors.ssh import answers
from ussycode.doors.ssh.arrivals import banner, objection
from ussycode.doors.ssh.screen import tame


@given(st.text(st.characters()), st.booleans())
def test_tamed_text_only_prints(text: str, colour: bool) -> None:
    shown = tame(text + "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r" + text, colour)
    left = shown.replace("\n", "").replace("\t", "")
    if not colour:
        assert left.isprintable()
    assert "\x1b]" not in shown and "\x1b[2J" not in shown and "\r" not in shown and "\x9b" not in shown


def test_own_colours_pass_where_they_are_understood() -> None:
    assert tame("\x1b[31merror\x1b[0m", True) == "\x1b[31merror\x1b[0m"
    assert tame("\x1b[31merror\x1b[0m", False) == "error"


@pytest.mark.parametrize("handle", ["", "a", "-ab", "ab-", "9a", "A b", "root", "www", "x" * 21, "ab\x1b[2J"])
def test_handles_that_cannot_be_are_told_why(handle: str) -> None:
    assert objection(handle) and "\x1b" not in objection(handle)


def test_good_handles_pass() -> None:
    assert [objection(h) for h in ("ab", "olive", "o-1", "x" * 20)] == [""] * 4


def test_the_banner_is_plain_where_nothing_else_is_understood() -> None:
    assert banner(False).isascii() and not banner(True).isascii()
    assert len({len(line) for line in banner(True).splitlines() if line}) == 1


@pytest.mark.parametrize(("line", "code"), [
    ("scp -t x", "lobby.files"), ("rsync --server", "lobby.files"), ("git-receive-pack 'x'", "lobby.files"),
    ("ls 'x", "line.unbalanced"), ("ls " + "x" * 70_000, "line.too_long"),
])
def test_lines_that_are_no_commands_are_refused(line: str, code: str) -> None:
    with pytest.raises(Failure) as refused:
        answers.words(line, "host")
    assert refused.value.code == code
